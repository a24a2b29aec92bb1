"""`dstack server`: the server of this machine's DSTACK_HOME."""

from __future__ import annotations

import os
import time
from collections import deque

import click

from dstack.cli import settings, show, words
from dstack.cli.nouns import Noun
from dstack.errors import ConflictError, DstackError, TryAgainError, UsageError
from dstack.model.paths import ServerLayout
from dstack.server import embedded
from dstack.server.client import Client

STOP_SECONDS = 30.0


@click.group("server", cls=Noun)
def command() -> None:
    """Start and stop the server, and see how it is.

    Your own starts by itself with the first command that needs it, and leaves when it is idle. Runs go on while no
    server is there; the next one takes them up.
    """


@command.command("start")
@click.option("--host", metavar="HOST", help="Listen on this address too, for a team; needs DSTACK_TOKEN.")
@click.option("--port", type=click.IntRange(0, 65535), metavar="PORT", help="The port to listen on.")
@click.option("--foreground", is_flag=True, help="Stay in the foreground, for systemd and containers.")
def start(host: str | None, port: int | None, foreground: bool) -> None:
    """Start the server of this machine.

    With --port it also listens on TCP, for a team; then it stays until it is stopped.
    """
    if host is not None and port is None:
        raise UsageError("--host needs --port", hint="dstack server start --host 0.0.0.0 --port 8000")
    home = embedded.home()
    arguments = [*(["--host", host] if host else []), *(["--port", str(port)] if port is not None else [])]
    if embedded.answers(home):
        if arguments or foreground:
            raise ConflictError("the server runs already", hint="`dstack server stop` first; runs go on meanwhile")
        show.say(f"the server runs already at {_local().status().url}")
        return
    if foreground:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.chdir(home)
        words_ = embedded.command(home, arguments)
        os.execve(words_[0], words_, {"DSTACK_IDLE_EXIT": "0", **embedded.server_environment()})
    embedded.start(home, arguments)
    show.say(f"the server listens at {_local().status().url}")


@command.command("stop")
def stop() -> None:
    """Stop the server of this machine. Runs go on: the next server takes them up."""
    client = _local()
    try:
        status = client.status()
        client.shutdown()
    except TryAgainError:
        show.say("no server is running")
        return
    deadline = time.monotonic() + STOP_SECONDS
    while _alive(status.pid):
        if time.monotonic() > deadline:
            raise DstackError(f"the server (pid {status.pid}) does not end", hint="dstack server logs")
        time.sleep(0.02)
    goes_on = f"; {status.runs} unfinished {'run goes' if status.runs == 1 else 'runs go'} on" if status.runs else ""
    show.say(f"the server has stopped{goes_on}")


@command.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(as_json: bool) -> None:
    """Show the server that commands talk to. Exits with 75 if there is none."""
    endpoint = settings.configured(embedded.home())
    client = _local() if endpoint is None else Client(endpoint, say=settings.warn, tolerant=True)
    try:
        found = client.status()
    except TryAgainError as error:
        if endpoint is not None:
            raise
        raise TryAgainError("no server is running", hint="it starts with the next command that needs it") from error
    if as_json:
        show.document(found)
        return
    show.fields(
        [
            ("url", found.url),
            ("version", found.version),
            ("pid", str(found.pid)),
            ("started", f"{found.started_at} ({words.ago(found.started_at)})"),
            ("unfinished runs", str(found.runs)),
            ("home", found.home),
        ]
    )


@command.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C.")
@click.option("--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines.")
def logs(follow: bool, tail: int | None) -> None:
    """Print the log of this machine's server."""
    path = ServerLayout(embedded.home()).server_log
    if not path.exists():
        raise UsageError(f"there is no log: no server was ever started here ({path})")
    out = show.out()
    with path.open("rb") as file:
        out.writelines(file if tail is None else deque(file, tail))
        out.flush()
        while follow:
            if file.tell() > path.stat().st_size:
                file.seek(0)
            block = file.read()
            if block:
                out.write(block)
                out.flush()
            else:
                time.sleep(0.2)


def _local() -> Client:
    """A client that never starts the server, and talks to one of any version."""
    return Client(embedded.endpoint(embedded.home()), say=settings.warn, tolerant=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not _zombie(pid)


def _zombie(pid: int) -> bool:
    """Ended, but its parent did not look yet. Only Linux can tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] == b"Z"
    except FileNotFoundError:
        return os.path.isdir("/proc/self")
