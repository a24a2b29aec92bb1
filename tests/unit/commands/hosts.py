"""A folder as a host: scripts run here, with the shell and programs that a test chooses."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from dstack.commands.command import Command, Result
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import OTHER_MACHINE, HostContext
from dstack.render import script
from tests.environment import needs

T = TypeVar("T")
NO_DOCKER = "true"
"""A docker that knows no container."""


@dataclass
class Folder:
    """`shell` is the command line that runs a script; `path` replaces PATH."""

    root: Path
    shell: tuple[str, ...] = ("sh",)
    path: str | None = None
    docker: str = NO_DOCKER
    server: str = "server1"
    context: HostContext = field(init=False)
    base: Path = field(init=False)

    def __post_init__(self) -> None:
        self.context = HostContext(HostLayout(str(self.root), "0", self.server), self.docker)
        asked = self.result(
            Command("", script("machine/running", self.context, server=self.server), lambda result: result)
        )
        assert asked.exit_status == OTHER_MACHINE, asked
        machine = asked.stdout.decode().strip().removeprefix("machine=")
        self.context = HostContext(HostLayout(str(self.root), machine, self.server), self.docker)
        self.base = self.root / machine / self.server

    def job(self, attempt: str) -> Path:
        """Make the working tree of a new job."""
        tree = self.base / "jobs" / attempt / "workflow"
        tree.mkdir(parents=True)
        return tree

    def result(self, command: Command[T]) -> Result:
        """Run the command, for at most a minute. Its stdin ends after its data."""
        assert isinstance(command.stdin, bytes)
        done = subprocess.run(
            [*self.shell, "-c", command.script],
            input=command.stdin,
            capture_output=True,
            env={**os.environ, "PATH": self.path or os.environ["PATH"]},
            timeout=60,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def ask(self, command: Command[T]) -> T:
        """Run the command and parse its answer."""
        return command.parse(self.result(command))


def busybox(folder: Path) -> str:
    """A PATH with only busybox."""
    program = shutil.which("busybox")
    if program is None:
        needs.missing("busybox is not installed; install it: apt-get install busybox-static")
    folder.mkdir()
    for name in subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split():
        (folder / name).symlink_to(program)
    return str(folder)


def processes(script: str) -> int:
    """Count the processes that the script starts: in a new PID namespace, ids are consecutive."""
    needs.root("a PID namespace")
    assert shutil.which("unshare"), "util-linux has it"
    last = 'sh -c "$1" > /dev/null || exit; sh -c "echo \\$\\$"; exit'
    words = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", last, "sh", script]
    done = subprocess.run(words, env={"PATH": "/usr/bin:/bin", "HOME": "/"}, capture_output=True, text=True, check=True)
    return int(done.stdout) - 3  # the outer shell is 1, the script's 2
