"""The user's own server on this machine: where its socket is, and how to start it."""

from __future__ import annotations

import fcntl
import http.client
import os
import pwd
import shlex
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from dstack.client.client import Client
from dstack.client.connection import ignore, problem
from dstack.client.settings import Endpoint, using
from dstack.errors import DstackError, ErrorCode, UsageError
from dstack.model.paths import ServerLayout

if TYPE_CHECKING:
    import subprocess

START_SECONDS = 30.0
SOCKET_PATH_BYTES = 100
"""sun_path holds 104 bytes on macOS and 108 on Linux (unix(4), unix(7))."""

_children: list[subprocess.Popen[bytes]] = []
"""Kept so that Popen doesn't warn: a server outlives the command that started it."""


class StartError(DstackError):
    """The server did not start."""

    code = ErrorCode.SERVER_NOT_STARTED


def home() -> Path:
    """Return DSTACK_HOME, or ~/.dstack. Without HOME (cron), the home folder comes from the password database."""
    given = os.environ.get("DSTACK_HOME")
    try:
        if given:
            return Path(given).expanduser().absolute()
        return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir) / ".dstack"
    except (KeyError, RuntimeError) as error:
        hint = "export DSTACK_HOME=FOLDER, a folder that you may write to"
        raise UsageError(f"can't tell where your home folder is: {error.args[0]}", hint=hint) from error


def socket_path(home: Path) -> Path:
    """Return the socket of this home's server. If its path is too long, use one in /tmp, in a folder that only this
    user can access. Raises DstackError if that folder belongs to somebody else."""
    path = ServerLayout(home.absolute()).state / "socket"
    if len(os.fsencode(path)) < SOCKET_PATH_BYTES:
        return path
    import hashlib

    digest = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]
    folder = Path(f"/tmp/dstack-{os.getuid()}-{digest}")  # noqa: S108, checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        hint = f"remove {folder}, or set DSTACK_HOME to a shorter path"
        raise DstackError(
            f"the server's socket can't be in {folder}: the folder must belong to you alone (mode 0700)", hint=hint
        )
    return folder / "socket"


def endpoint(home: Path) -> Endpoint:
    return Endpoint(str(socket_path(home)), embedded=True)


def connect(home: Path, say: Callable[[str], None] = ignore) -> Client:
    """Return a client of the embedded server. It starts the server if none is running."""
    return Client(endpoint(home), start=lambda: start(home), say=say)


def answers(home: Path) -> bool:
    """Whether this home's server is running."""
    try:
        with closing(endpoint(home).open(START_SECONDS)) as connection:
            connection.request("GET", "/v1/status", headers={"Connection": "close"})
            with connection.getresponse() as response:
                return response.status == 200
    except (OSError, http.client.HTTPException):
        return False


def start(home: Path, arguments: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
    """Start the server and return once it answers. If several commands try at once, only one starts it. `arguments`
    follow `--home HOME`. Raises StartError with the end of the server's log."""
    layout = ServerLayout(home)
    with using(home, StartError):
        layout.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        layout.state.mkdir(mode=0o700, exist_ok=True)
        lock = (layout.state / "start.lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers(home):
            return
        with using(home, StartError):
            before = layout.server_log.stat().st_size if layout.server_log.exists() else 0
            ours, theirs = os.pipe()
            with os.fdopen(ours, "rb") as problem_pipe:
                try:
                    process = _spawn(layout, arguments, environment or {}, theirs)
                finally:
                    os.close(theirs)
                _wait(layout, process, before, problem_pipe)


def maintain(home: Path, what: str, file: Path, *arguments: str) -> None:
    """Make a backup of the home's state, or restore one. Raises what goes wrong."""
    import subprocess

    words = [sys.executable, "-m", "dstack.server.maintenance", what, str(file), "--home", str(home), *arguments]
    done = subprocess.run(words, stdout=subprocess.PIPE, env=server_environment(), check=False)
    if done.returncode:
        raise problem(500, done.stdout)


def command(home: Path, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command line that runs the server in the foreground."""
    return [sys.executable, "-m", "dstack.server", "--home", str(home), "--socket", str(socket_path(home)), *arguments]


def server_environment() -> dict[str, str]:
    """Return the user's environment, changed so that `python -m dstack.server` finds this package from any folder."""
    environment = dict(os.environ)
    package = Path(__file__).resolve().parents[2]
    if not {"site-packages", "dist-packages"} & set(package.parts):
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{package}{os.pathsep}{known}" if known else str(package)
    return environment


def _spawn(
    layout: ServerLayout, arguments: Sequence[str], extra: dict[str, str], problem_pipe: int
) -> subprocess.Popen[bytes]:
    """Start the server. If it can't start, it says why on the pipe: a full disk would take no file."""
    import subprocess

    with open(layout.server_log, "ab", opener=partial(os.open, mode=0o600)) as log:
        process = subprocess.Popen(
            command(layout.home, ["--problem-pipe", str(problem_pipe), *arguments]),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.home,
            env={**server_environment(), **extra},
            start_new_session=True,
            pass_fds=[problem_pipe],
        )
    _children.append(process)
    return process


def _wait(layout: ServerLayout, process: subprocess.Popen[bytes], before: int, problem_pipe: BinaryIO) -> None:
    deadline = time.monotonic() + START_SECONDS
    pause = 0.01
    while not answers(layout.home):
        if process.poll() is not None and not answers(layout.home):
            raise _failed(layout, before, problem_pipe)
        if time.monotonic() > deadline:
            hint = f"see its log, {layout.server_log}"
            raise StartError(f"the dstack server did not start within {START_SECONDS:.0f} seconds", hint=hint)
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def _failed(layout: ServerLayout, before: int, problem_pipe: BinaryIO) -> StartError:
    """Return the error: what the server met, if it could say so, else the end of its log."""
    hint = f"see its log, {layout.server_log}"
    os.set_blocking(problem_pipe.fileno(), False)
    if told := problem_pipe.read():
        known = problem(500, told)
        code = known.code if known.code == ErrorCode.STATE_DAMAGED else None
        if known.code == ErrorCode.SERVER_DISK_FULL:
            known.hint = (
                f"free space there: df -h {shlex.quote(str(layout.home))}"  # without a server, nothing is pruned
            )
        error = StartError(f"the dstack server did not start: {known.message}", hint=known.hint or hint, code=code)
        error.exit_code = known.exit_code
        return error
    with layout.server_log.open("rb") as file:
        file.seek(before if before <= os.fstat(file.fileno()).st_size else 0)  # it may have been rotated
        lines = file.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
    return StartError("the dstack server did not start: " + "\n".join(lines[-8:]), hint=hint)
