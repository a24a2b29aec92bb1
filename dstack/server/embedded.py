"""The user's own server on this machine: where its socket is, and how it is started when nobody listens there."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import pwd
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dstack.errors import DstackError
from dstack.model.paths import ServerLayout
from dstack.server.client import Client
from dstack.server.connection import ignore
from dstack.server.endpoint import Endpoint

START_SECONDS = 30.0
ERROR = "dstack server: error: "
"""How the server's own words begin when it can't start."""
SOCKET_PATH_BYTES = 100
"""sun_path holds 104 bytes on macOS and 108 on Linux (unix(4), unix(7))."""

_children: list[subprocess.Popen[bytes]] = []
"""Servers outlive the command that started them, so nobody waits for them here."""


class StartError(DstackError):
    """The server did not come up."""


def home() -> Path:
    """DSTACK_HOME, or ~/.dstack; the user's home comes from the password database where HOME is not set (cron)."""
    given = os.environ.get("DSTACK_HOME")
    if given:
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir) / ".dstack"


def socket_path(home: Path) -> Path:
    """Where the server of this home listens. A path that is too long for a socket is replaced by one in /tmp, in a
    folder that only this user can enter; DstackError if somebody else made that folder."""
    path = ServerLayout(home.absolute()).state / "socket"
    if len(os.fsencode(path)) < SOCKET_PATH_BYTES:
        return path
    digest = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:12]
    folder = Path(f"/tmp/dstack-{os.getuid()}-{digest}")  # noqa: S108, checked below
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        hint = f"remove {folder}, or set DSTACK_HOME to a shorter path"
        raise DstackError(f"{folder} is not a folder of yours alone: the server's socket can't be there", hint=hint)
    return folder / "socket"


def endpoint(home: Path) -> Endpoint:
    """The embedded server's address."""
    return Endpoint(str(socket_path(home)), embedded=True)


def connect(home: Path, say: Callable[[str], None] = ignore) -> Client:
    """A client of the embedded server, which is started when a request finds nobody there."""
    return Client(endpoint(home), start=lambda: start(home), say=say)


def answers(home: Path) -> bool:
    """Whether the server of this home is up."""
    try:
        connection = endpoint(home).open(START_SECONDS)
    except OSError:
        return False
    try:
        connection.request("GET", "/v1/status", headers={"Connection": "close"})
        with connection.getresponse() as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def start(home: Path, arguments: Sequence[str] = (), environment: dict[str, str] | None = None) -> None:
    """Bring the server up and return when it answers. Of several that try at once, one starts it and the others find
    it. `arguments` follow `--home HOME`. Raises StartError with the end of the server's log."""
    layout = ServerLayout(home)
    layout.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    layout.state.mkdir(mode=0o700, exist_ok=True)
    with (layout.state / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers(home):
            return
        before = layout.server_log.stat().st_size if layout.server_log.exists() else 0
        process = _spawn(layout, arguments, environment or {})
        _wait(home, process, layout.server_log, before)


def command(home: Path, arguments: Sequence[str] = ()) -> list[str]:
    """The words that start the server in the foreground."""
    return [sys.executable, "-m", "dstack.server", "--home", str(home), *arguments]


def server_environment() -> dict[str, str]:
    """The user's environment, in which `python -m dstack.server` finds this very package from any folder."""
    environment = dict(os.environ)
    package = Path(__file__).resolve().parents[2]
    if not {"site-packages", "dist-packages"} & set(package.parts):
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{package}{os.pathsep}{known}" if known else str(package)
    return environment


def _spawn(layout: ServerLayout, arguments: Sequence[str], extra: dict[str, str]) -> subprocess.Popen[bytes]:
    opened = os.open(layout.server_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(opened, "wb") as log:
        process = subprocess.Popen(
            command(layout.home, arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=layout.home,
            env={**server_environment(), **extra},
            start_new_session=True,
        )
    _children.append(process)
    return process


def _wait(home: Path, process: subprocess.Popen[bytes], log: Path, before: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    pause = 0.01
    while not answers(home):
        if process.poll() is not None and not answers(home):
            raise _failed(process.returncode, log, before)
        if time.monotonic() > deadline:
            raise StartError(
                f"the dstack server does not answer after {START_SECONDS:.0f} seconds", hint=f"its log is {log}"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


def _failed(exit_code: int, log: Path, before: int) -> StartError:
    """What the server said last; where it knew what was wrong, its own words and exit code alone."""
    with log.open("rb") as file:
        file.seek(before)
        lines = file.read().decode(errors="replace").strip().splitlines() or ["it printed nothing"]
    known = [line.removeprefix(ERROR) for line in lines if line.startswith(ERROR)]
    hints = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    said = known[-1] if known else "\n".join(lines[-8:])
    hint = hints[-1] if known and hints else f"its log is {log}"
    error = StartError(f"the dstack server did not start: {said}", hint=hint)
    error.exit_code = exit_code if known else StartError.exit_code
    return error
