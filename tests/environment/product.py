"""The installed product, in a home folder made for the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dstack.client.embedded import answers, connect
from dstack.model.paths import ServerLayout
from tests.environment import needs, prefork
from tests.environment.daemon import ended
from tests.environment.waiting import until

KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "DOCKER_HOST", "SYSTEMROOT")
"""Variables that a command inherits from the tests."""
ROOT = str(Path(__file__).parents[2])
forked: dict[Path, int] = {}
"""The process ids of servers that no command started, by DSTACK_HOME."""


def program(name: str = "dstack") -> Path:
    """Return the console script installed beside the running Python."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        needs.missing(f"{path} is not there; install the checkout: pip install -e '.[dev]'")
    return path


class Home:
    """A fresh HOME and DSTACK_HOME, so that no file of the developer is read or written. Its path is short, for unix
    sockets. `close` stops the server and removes everything.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="dt-", dir="/tmp"))
        self.dstack = self.path / ".dstack"
        git = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "T", "GIT_AUTHOR_EMAIL": "t@example.org"}
        git |= {"GIT_COMMITTER_NAME": "T", "GIT_COMMITTER_EMAIL": "t@example.org"}
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        self.environment = {**kept, **git, "HOME": str(self.path), "DSTACK_HOME": str(self.dstack)}

    def popen(
        self, *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `dstack ARGUMENTS` with pipes for stdout and stderr and nothing on stdin."""
        return subprocess.Popen(
            [program(), *arguments],
            cwd=cwd or self.path,
            env={**self.environment, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run `dstack ARGUMENTS` and wait for it. Invalid UTF-8 gets surrogate escapes. `timeout` is in seconds."""
        words = [os.fspath(argument) for argument in arguments]
        known = {**self.environment, **(env or {})}
        if stdin is None:
            done = prefork.run(words, cwd or self.path, known, timeout)
        else:
            done = subprocess.run(
                [program(), *words],
                cwd=cwd or self.path,
                env=known,
                input=stdin.encode(),
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        return subprocess.CompletedProcess(words, done.returncode, text(done.stdout), text(done.stderr))

    def serve(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the server as the first command would, unless one was started. `environment` is added to the home's."""
        layout = ServerLayout(self.dstack)
        if layout.state.exists():
            return
        layout.home.mkdir(mode=0o700, exist_ok=True)
        layout.state.mkdir(mode=0o700)
        layout.server_log.touch(0o600)
        self.serve_again(environment)

    def serve_again(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the server of a home that has had one."""
        self.launch(environment)
        until(lambda: answers(self.dstack), f"the server of {self.dstack} answers", 60)

    def launch(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the server of a home that has had one, and don't wait until it answers."""
        log, known = ServerLayout(self.dstack).server_log, {**self.environment, **(environment or {})}
        forked[self.dstack] = prefork.serve(self.dstack, {**known, "PYTHONPATH": ROOT}, log)

    def close(self) -> None:
        """Stop the server and remove the home."""
        if servers(self.dstack):
            connect(self.dstack).shutdown()
            until(lambda: not servers(self.dstack), f"the server of {self.dstack} has stopped")
        shutil.rmtree(self.path)


def text(output: bytes) -> str:
    """Decode output, with surrogate escapes for what is not UTF-8."""
    return output.decode(errors="surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def servers(home: Path) -> list[int]:
    """Return the process ids of the servers with this DSTACK_HOME."""
    wanted = b"--home\0" + bytes(home) + b"\0"
    found = [forked[home]] if home in forked and not ended(forked[home]) else []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
