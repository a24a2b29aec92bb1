"""`dstack runners add`: a machine by its address, and who vouches for its key."""

from __future__ import annotations

import re
from pathlib import Path

import click

from dstack.cli import machine, settings, show
from dstack.errors import HostAuthError, UnknownHostKeyError, UsageError
from dstack.model.api.runners import AddRunner, RunnerView
from dstack.model.runner import Address
from dstack.server.client import Client

HOST = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?:\[(?P<v6>[^]]+)\]|(?P<host>[^@:\[\]]+)|(?P<bare>[0-9A-Fa-f:.%]+))(?::(?P<port>\d+))?"
)


@click.command("add")
@click.argument("host")
@click.option("--name", metavar="NAME", help="What to call it; default: the host's name.")
@click.option("--user", metavar="USER", help="The user to log in as.")
@click.option("--port", type=click.IntRange(1, 65535), metavar="PORT", help="The port of its SSH server.")
@click.option("--identity", metavar="FILE", help="The private key to log in with.")
@click.option("--jump", metavar="HOST", help="Go through this host.")
@click.option("--label", "labels", multiple=True, metavar="LABEL", help="A label that runs can ask for; repeatable.")
@click.option("--gpus", type=click.IntRange(0), metavar="N", help="How many GPUs it has, instead of what is found.")
@click.option("--max-jobs", type=click.IntRange(0), metavar="N", help="How many jobs without resources may share it.")
@click.option("--root", metavar="DIR", help="Where it keeps dstack's files; default: ~/.dstack-host.")
@click.option(
    "--allow-mount",
    "allow_mounts",
    multiple=True,
    metavar="DIR",
    help="A folder of it that jobs may mount, with all below; repeatable.",
)
@click.option("--docker", metavar="COMMAND", help="docker, podman, or 'sudo docker'.")
@click.option("--fingerprint", metavar="SHA256:...", help="The fingerprint of its host key, to pin without asking.")
@click.option("--authorize", is_flag=True, help="Let the server's own key in, so that it needs nobody's agent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def add(
    host: str,
    user: str | None,
    port: int | None,
    identity: str | None,
    jump: str | None,
    authorize: bool,
    as_json: bool,
    **options: object,
) -> int:
    """Add a machine that runs jobs.

    HOST is [USER@]HOST[:PORT], an alias of ~/.ssh/config, or `local` for this machine without SSH. The
    machine is checked, and its host key is shown and pinned.

    A team's server that can't log in by itself has its own key let in, with your keys; `--authorize` does that for your
    own server too. `dstack runners remove` takes it out again.
    """
    address = parse_host(host, user=user, port=port, identity=identity, jump=jump)
    request = AddRunner(address=address, **options)  # type: ignore[arg-type]
    client = settings.connect()
    runner = letting_in(client, request) if authorize else _add(client, request)
    return machine.report(runner, as_json)


def parse_host(text: str, *, user: str | None, port: int | None, identity: str | None, jump: str | None) -> Address:
    """The address that the words mean. Raises UsageError for one that makes no sense, or says a thing twice."""
    if text == "local":
        if user or port or identity or jump:
            raise UsageError("`local` is this machine, without SSH: it takes no SSH options")
        return Address()
    match = HOST.fullmatch(text)
    if match is None or text.startswith("-"):
        raise UsageError(f"'{text}' is no host", hint="write HOST, USER@HOST, USER@HOST:PORT or [::1]:PORT")
    written = int(match["port"]) if match["port"] else None
    if (user and match["user"] and user != match["user"]) or (port and written and port != written):
        raise UsageError(f"'{text}' and --user or --port say different things")
    if written is not None and not 0 < written < 65536:
        raise UsageError(f"{written} is no port")
    return Address(
        host=match["v6"] or match["host"] or match["bare"],
        user=user or match["user"],
        port=port or written,
        identity=identity and str(Path(identity).expanduser().absolute()),
        jump=jump,
    )


def _add(client: Client, request: AddRunner) -> RunnerView:
    """Add it; a person may vouch for a key that nobody knows yet."""
    try:
        return client.add_runner(request)
    except HostAuthError:
        if client.endpoint.embedded or request.authorized:
            raise
        return letting_in(client, request)
    except UnknownHostKeyError as unknown:
        if request.fingerprint is not None or not show.interactive():
            if not unknown.hint:
                unknown.hint = f"if it is the right one, add --fingerprint {unknown.fingerprint}"
            raise
        show.say(unknown.message)
        if not show.confirm(f"Is {unknown.fingerprint} its key?"):
            raise UsageError("the machine was not added") from unknown
        request.fingerprint = unknown.fingerprint
        return _add(client, request)


def letting_in(client: Client, request: AddRunner) -> RunnerView:
    """Let the server's own key in from here, with this user's keys, then add the machine."""
    if request.address.local:
        raise UsageError("`local` is this machine, without SSH: no key is needed")
    from dstack.cli import letin

    own = client.key()
    show.say(f"letting the key of the server in on {request.address}")
    request.fingerprint = letin.let_in(request.address, request.fingerprint, own)
    request.authorized = True
    return _add(client, request)
