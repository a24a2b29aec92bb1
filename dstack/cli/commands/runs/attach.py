"""`dstack attach`: follow a run again, with its ports."""

from __future__ import annotations

import click

from dstack.cli import connect
from dstack.cli.attached import attached
from dstack.cli.parameters import REF, json_lines_option, ports_option, run_of
from dstack.cli.tunnels import Tunnels


@click.command("attach")
@click.argument("run", type=REF)
@ports_option
@json_lines_option
@click.option("-q", "--quiet", is_flag=True, help="Print only the run's name.")
def command(run: str, ports: tuple[str, ...], as_json: bool, quiet: bool) -> int:
    """Follow a run again, with its ports.

    It prints the log from its beginning, as `dstack run` does, and forwards the ports of the workflows. Ctrl-C leaves
    the run alone unless you choose to stop it.
    """
    client = connect.connect()
    with Tunnels(ports) as tunnels:
        return attached(client, run_of(client, run), tunnels, as_json=as_json, quiet=quiet)
