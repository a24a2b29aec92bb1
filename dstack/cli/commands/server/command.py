"""`dstack server`: manage the server of DSTACK_HOME on this machine."""

from __future__ import annotations

import os
import shlex
import time
from collections import deque
from pathlib import Path

import click

from dstack.cli import connect
from dstack.cli.commands.server.install import add_to
from dstack.cli.commands.server.token import token
from dstack.cli.output import show, words
from dstack.cli.parameters import Noun, json_option
from dstack.cli.server_log import ServerLog
from dstack.client import embedded
from dstack.client.client import Client
from dstack.client.settings import configured, using
from dstack.errors import ConflictError, DstackError, ErrorCode, TryAgainError, UsageError
from dstack.model.api.notify import NotifyTarget
from dstack.model.api.server import DiskSpace, TaskTrouble
from dstack.model.paths import ServerLayout
from dstack.model.text.units import size_words

STOP_SECONDS = 30.0


@click.group("server", cls=Noun)
def command() -> None:
    """Start, stop and inspect the server.

    Your own server starts automatically with the first command that needs it, and stops when it is idle. Runs
    continue without a server; the next server picks them up.
    """


command.add_command(token)


@command.command("start")
@click.option("--host", metavar="HOST", help="Address to listen on, with --port; default: 127.0.0.1.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="TCP port to listen on, for a team; needs DSTACK_TOKEN, or a token of `dstack server token create`.",
)
@click.option(
    "--allow-server-commands",
    is_flag=True,
    help="Let admins over TCP do what amounts to commands as the server's user: use --local and the runner `local`, "
    "Docker commands other than docker and podman, and key files of this machine.",
)
@click.option(
    "--storage-root",
    "storage_roots",
    multiple=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder in which admins over TCP may store artifacts, besides the default one; repeatable.",
)
@click.option("--base-path", metavar="PATH", help="Path before all routes, for a reverse proxy; needs --port.")
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Also answer to this name, beside the machine's own name and its IP addresses; '*' for any.",
)
@click.option("--tls-cert", metavar="FILE", help="Certificate with its chain, in PEM format, to serve https.")
@click.option("--tls-key", metavar="FILE", help="Key of the certificate; default: it is in the same file.")
@click.option("--foreground", is_flag=True, help="Run in the foreground, for systemd and containers.")
def start(
    host: str | None,
    port: int | None,
    base_path: str | None,
    allow_host: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    allow_server_commands: bool,
    storage_roots: tuple[Path, ...],
    foreground: bool,
) -> None:
    """Start the server on this machine.

    With --port, it also listens on TCP, for a team, and doesn't stop when it is idle. A renewed certificate is used
    without a restart.
    """
    if tls_key is not None and tls_cert is None:
        raise UsageError("--tls-key needs --tls-cert")
    files = {"--tls-cert": tls_cert, "--tls-key": tls_key}
    options = {"--host": host, "--base-path": base_path}
    options |= {name: os.path.abspath(os.path.expanduser(file)) for name, file in files.items() if file is not None}
    arguments = [word for name, value in options.items() if value is not None for word in (name, value)]
    arguments += [word for name in allow_host for word in ("--allow-host", name)]
    arguments += ["--allow-server-commands"] if allow_server_commands else []
    arguments += [word for root in storage_roots for word in ("--storage-root", str(root.absolute()))]
    if port is not None:
        arguments += ["--port", str(port)]
    elif arguments:
        raise UsageError(
            f"{arguments[0]} needs --port", hint=f"dstack server start {shlex.join(arguments)} --port 8000"
        )
    home = embedded.home()
    if embedded.answers(home):
        if arguments or foreground:
            raise ConflictError(
                "the server is already running", hint="stop it first with `dstack server stop`; runs continue"
            )
        show.say(f"the server is already running at {_local().status().url}")
        return
    if foreground:
        with using(home):
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chdir(home)
        program = embedded.command(home, arguments)
        os.execve(program[0], program, {"DSTACK_IDLE_EXIT": "0", **embedded.server_environment()})
    embedded.start(home, arguments)
    show.say(f"the server is running at {_local().status().url}")


@command.command("stop")
def stop() -> None:
    """Stop the server on this machine. Runs continue, and the next server picks them up."""
    shut_down()


def shut_down() -> None:
    """Stop the server, if one runs, and wait for its end."""
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
            raise DstackError(
                f"the server (pid {status.pid}) has not stopped after {STOP_SECONDS:.0f} seconds",
                hint="dstack server logs",
            )
        time.sleep(0.02)
    unfinished = f"; {status.runs} unfinished {'run continues' if status.runs == 1 else 'runs continue'}"
    show.say("the server has stopped" + (unfinished if status.runs else ""))


@command.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--artifacts", is_flag=True, help="Include the artifacts that are stored in the server's own folder.")
def backup(file: Path, artifacts: bool) -> None:
    """Copy the server's state to FILE, while it runs.

    FILE gets the database, the server's keys and settings, logs, and the code of all runs. It can decrypt the secrets:
    keep it private. Artifacts in a bucket are not copied.
    """
    home = embedded.home()
    embedded.maintain(home, "backup", file.absolute(), *(["--artifacts"] if artifacts else []))
    show.say(f"backed up {home} to {file} ({size_words(file.stat().st_size)})")
    stored = ServerLayout(home).artifacts
    if not artifacts and stored.is_dir() and any(stored.iterdir()):
        show.say(f"it has no artifacts; to include those in {stored}, add --artifacts")


@command.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def restore(file: Path, yes: bool) -> None:
    """Stop the server and put the state in FILE back.

    Logs, code and artifacts that are newer stay. The next start asks the runners what has happened since: jobs that
    run there are adopted, results that are stored count, and nothing runs twice.
    """
    home = embedded.home()
    question = f"Replace the state of the server in {home} with {file}?"
    if not yes and show.interactive() and not show.confirm(question):
        raise UsageError("nothing was restored")
    if embedded.answers(home):
        shut_down()
    embedded.maintain(home, "restore", file.absolute())
    show.say(f"restored {file}; the next command starts the server, which asks the runners what has happened since")


@command.command("status")
@json_option
def status(as_json: bool) -> None:
    """Show the server that commands use. Exits with 75 if it is not running or can't be reached."""
    endpoint = configured(embedded.home())
    client = _local() if endpoint is None else Client(endpoint, say=connect.warn, tolerant=True)
    try:
        current = client.status()
    except TryAgainError as error:
        if endpoint is not None:
            raise
        hint = "it starts automatically, or with `dstack server start`"
        raise TryAgainError("no server is running", hint=hint, code=ErrorCode.SERVER_UNREACHABLE) from error
    if as_json:
        show.document(current)
        return
    show.fields(
        [
            ("url", current.url),
            ("version", current.version),
            ("pid", str(current.pid)),
            ("started", f"{current.started_at} ({words.ago(current.started_at)})"),
            ("unfinished runs", str(current.runs)),
            ("home", current.home),
            *([("disk", disk_words(current.disk))] if current.disk else []),
            *(("trouble", trouble_words(trouble)) for trouble in current.troubles),
            *(("notify", notify_words(target)) for target in current.notify),
            ("id", current.id),
            ("damaged records", ", ".join(current.damaged) or None),
        ]
    )


def disk_words(disk: DiskSpace) -> str:
    """Say how much space the server has, and what that means."""
    free = f"{size_words(disk.free)} free"
    if not disk.low:
        return free
    why = (
        f"less than the {size_words(disk.reserve)} that have to be" if disk.free < disk.reserve else "but no more files"
    )
    return f"{free}, {why}: no run is accepted; to free space: dstack prune"


def notify_words(target: NotifyTarget) -> str:
    """Say where messages don't arrive, and why."""
    since = words.local(target.failing_since or target.added_at)
    waiting = words.count(target.waiting, "message")
    return f"{target.url} has got no messages since {since}: {target.trouble} ({waiting} waiting); dstack notify list"


def trouble_words(trouble: TaskTrouble) -> str:
    """Say which task fails and why."""
    times = words.count(trouble.count, "failure")
    return f"{trouble.task}: {trouble.reason} ({times} since {words.local(trouble.since)}; it is tried again)"


@command.command("identity")
@click.option("--new", is_flag=True, help="This server is the copy: give it an id of its own.")
@click.option("--take-over", is_flag=True, help="The other server is the copy, or is gone: take the machines over.")
def identity(new: bool, take_over: bool) -> None:
    """Part two servers of which one is a copy of the other.

    With --new, this server's unfinished jobs end as lost: they belong to the other server, which goes on with them.
    With --take-over, this server drives them, and the other one does nothing on the machines any more.
    """
    if new == take_over:
        raise UsageError("give either --new or --take-over", hint="dstack server identity --help")
    client = Client(embedded.endpoint(embedded.home()), start=lambda: embedded.start(embedded.home()), say=connect.warn)
    status = client.change_identity(new=new)
    if new:
        show.say(f"this server's id is now {status.id}; on the other one, type: dstack server identity --take-over")
    else:
        show.say("this server drives the jobs on its machines now")


@command.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Keep printing until Ctrl-C.")
@click.option("--tail", type=click.IntRange(0, 10**9), metavar="N", help="Print only the last N lines.")
def logs(follow: bool, tail: int | None) -> None:
    """Print the log of the server on this machine."""
    layout = ServerLayout(embedded.home())
    if not layout.server_log.exists():
        raise UsageError(f"no server log at {layout.server_log}; no server has been started on this machine")
    out = show.out()
    with ServerLog(layout) as log:
        out.writelines(log.lines() if tail is None else deque(log.lines(), tail))
        out.flush()
        while follow:
            if block := log.added():
                out.write(block)
                out.flush()
            else:
                time.sleep(0.2)


def _local() -> Client:
    """Return a client that never starts the server, and accepts any server version."""
    return Client(embedded.endpoint(embedded.home()), say=connect.warn, tolerant=True)


def _alive(pid: int) -> bool:
    """Whether the process runs. A process that ended but is not yet reaped does not; only Linux can tell."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not os.path.isdir("/proc/self")


add_to(command, start, shut_down)
