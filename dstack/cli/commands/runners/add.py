"""`dstack runners add`: add a machine by its address, and confirm its host key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from dstack.cli import connect
from dstack.cli.output import runners, show
from dstack.cli.parameters import json_option
from dstack.client.client import Client
from dstack.errors import HostAuthError, UnknownHostKeyError, UsageError
from dstack.model.api.runners import AddRunner, RunnerView
from dstack.model.runner.runner import Address


@click.command("add")
@click.argument("host")
@click.option("--name", metavar="NAME", help="Name of the runner; default: the host's name.")
@click.option("--user", metavar="USER", help="User to log in as; default: from ~/.ssh/config.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Port of the SSH server; default: from ~/.ssh/config, else 22.",
)
@click.option("--identity", metavar="FILE", help="Private key to log in with.")
@click.option("--jump", metavar="HOST", help="Connect through this jump host.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="Label that workflows can ask for; repeatable.")
@click.option("--gpus", type=click.IntRange(0, 1024), metavar="N", help="Number of GPUs; default: the number found.")
@click.option(
    "--max-jobs",
    type=click.IntRange(0, 10**6),
    metavar="N",
    help="How many jobs that ask for no resources may run at once; default: one per CPU, at least 4.",
)
@click.option("--root", metavar="DIR", help="Folder for dstack's files on the machine; default: ~/.dstack-host.")
@click.option(
    "--allow-mount",
    "allow_mounts",
    multiple=True,
    metavar="DIR",
    help="Folder on the machine that jobs may mount, with everything below it; repeatable.",
)
@click.option("--docker", metavar="COMMAND", help="Docker command: docker (default), podman or 'sudo docker'.")
@click.option("--fingerprint", metavar="SHA256:...", help="Fingerprint of the host key, to pin it without asking.")
@click.option("--authorize", is_flag=True, help="Install the server's own key, so it doesn't depend on your SSH agent.")
@json_option
def add(host: str, authorize: bool, as_json: bool, **options: Any) -> int:
    """Add a machine as a runner.

    HOST is [USER@]HOST[:PORT], an alias from ~/.ssh/config, or `local` for the server's own machine without SSH. dstack
    checks the machine, then shows and pins its host key.

    If a team's server can't log in by itself, your SSH keys are used to install the server's own key on the machine.
    `--authorize` does the same for your own server. `dstack runners remove` removes the key again.
    """
    ssh = {name: options.pop(name) for name in ("user", "port", "identity", "jump")}
    request = AddRunner(address=parse_host(host, **ssh), **options)
    client = connect.connect()
    runner = authorize_and_add(client, request) if authorize else _add(client, request)
    return runners.report(runner, as_json)


def parse_host(text: str, *, user: str | None, port: int | None, identity: str | None, jump: str | None) -> Address:
    """Return the address. Raises UsageError if it is malformed, or if `text` and the options contradict each other."""
    if text == "local":
        if user or port or identity or jump:
            raise UsageError("`local` doesn't use SSH; leave out --user, --port, --identity and --jump")
        return Address()
    try:
        written = Address.parse(text)
    except ValueError as error:
        raise UsageError(str(error), hint="dstack runners add USER@HOST:PORT") from error
    if (user and written.user and user != written.user) or (port and written.port and port != written.port):
        raise UsageError(f"--user or --port contradicts '{text}'; give each only once")
    return replace(
        written,
        user=user or written.user,
        port=port or written.port,
        identity=identity and str(Path(identity).expanduser().absolute()),
        jump=jump,
    )


def _add(client: Client, request: AddRunner) -> RunnerView:
    """Add the runner. On a terminal, ask the user to confirm an unknown host key."""
    try:
        return client.add_runner(request)
    except HostAuthError:
        if client.endpoint.embedded or request.authorized:
            raise
        return authorize_and_add(client, request)
    except UnknownHostKeyError as unknown:
        if request.fingerprint is not None or not show.interactive():
            unknown.hint = unknown.hint or f"if the key is right, add --fingerprint {unknown.fingerprint}"
            raise
        show.say(unknown.message)
        if not show.confirm(f"Is {unknown.fingerprint} its host key?"):
            raise UsageError("the runner was not added") from unknown
        request.fingerprint = unknown.fingerprint
        return _add(client, request)


def authorize_and_add(client: Client, request: AddRunner) -> RunnerView:
    """Install the server's own key from here, with this user's keys, then add the runner."""
    if request.address.local:
        raise UsageError("`local` doesn't use SSH; leave out --authorize")
    import asyncio

    from dstack.cli.commands.runners.authorize import install_key

    own = client.key()
    show.say(f"installing the server's key on {request.address}")
    request.fingerprint = asyncio.run(install_key(request.address, request.fingerprint, own))
    request.authorized = True
    return _add(client, request)
