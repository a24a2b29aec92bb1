"""`dstack runners approve` and `token`: machines that register themselves with dstack-runner."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.options import json_option
from dstack.cli.output import show


@click.command("approve")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@json_option
def approve(names: tuple[str, ...], as_json: bool) -> None:
    """Approve machines that registered with dstack-runner.

    Without NAME, list the machines that wait for approval. Before you approve one, compare its fingerprint with the
    output of `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the machine.
    """
    client = connect.connect()
    if not names:
        waiting = [each for each in client.registrations() if not each.approved]
        if as_json:
            show.document(waiting)
        elif not waiting:
            show.say("no machine is waiting for approval")
        else:
            rows = [(each.name, each.address, ", ".join(each.gpus), each.fingerprints[0]) for each in waiting]
            show.table(("NAME", "ADDRESS", "GPUS", "HOST KEY"), rows)
        return
    approved = [client.approve(name) for name in names]
    if as_json:
        show.document(approved)
    for each in approved:
        show.say(f"{each.name}: approved; it is added at its next heartbeat")


@click.command("token")
def token() -> None:
    """Create a token for dstack-runner.

    The token registers one machine, which then needs no approval.
    """
    show.line(connect.connect().registration_token().token)
