"""A host without SSH, to test the host protocol: scripts go straight to `sh`."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import structs

from dstack.commands.command import Command, Result
from dstack.commands.job.launch import launch
from dstack.commands.job.observe import observe, read_log
from dstack.commands.job.receive_code import receive
from dstack.decide import Decision, Observed, Recorded, decide
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Launched, Order
from dstack.model.paths import TAR_COMPLETE, HostLayout
from dstack.model.runner.host_context import HostContext
from tests.environment.account import Account
from tests.environment.waiting import until

T = TypeVar("T")

FILES = {"train.py": b"print('hello')\n", "sub/run.sh": b"#!/bin/sh\necho run\n", ".dstack/workflows.yaml": b"x\n"}


class Ground:
    """A root folder of dstack's on this machine, with a mirror that holds a small tree. Its containers are removed by
    `close`. With a `user`, everything on the host is done as that user."""

    _numbers = itertools.count(1)

    def __init__(self, folder: Path, user: Account | None = None) -> None:
        self.folder = folder
        self.user = user
        self.server = f"e2e-{os.getpid()}-{next(self._numbers)}"
        self.context = HostContext(HostLayout(str(folder / "root"), machine_id(), self.server))
        self.home = folder / "root" / machine_id() / self.server
        self.snapshot = self._ship()

    def close(self) -> None:
        ours = ["--filter", f"label=dstack.server={self.server}"]
        found = docker("ps", "--all", "--quiet", *ours).split()
        if found:
            docker("rm", "--force", *found)
        if (self.folder / "root").exists():
            shutil.rmtree(self.folder / "root")

    def process(self, script: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start the script in its own session."""
        account = {"user": self.user.uid, "group": self.user.uid, "extra_groups": self._groups()} if self.user else {}
        return subprocess.Popen(
            ["sh", "-c", 'eval "$x"' if len(script) < 100_000 else script],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "x": script},
            cwd="/",
            start_new_session=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.PIPE, **account, **options},
        )

    def ask(self, command: Command[T]) -> T:
        """Run the command to its end and parse the answer."""
        assert isinstance(command.stdin, bytes)
        process = self.process(command.script)
        out, err = process.communicate(command.stdin, timeout=120)
        return command.parse(Result(process.returncode, out, err))

    def order(self, attempt: str, image: str, script: str, **changes: Any) -> Order:
        """Return an order that runs the script on the small tree."""
        other = {name: changes.pop(name) for name in ("project", "tree") if name in changes}
        snapshot = structs.replace(self.snapshot, **other)
        return Order(job=attempt, attempt=attempt, image=image, script=script, snapshot=snapshot, **changes)

    def launch(self, attempt: str, image: str, script: str, stdin: bytes = b"", **changes: Any) -> Launched:
        return self.ask(launch(self.context, self.order(attempt, image, script, **changes), stdin))

    def start(self, attempt: str, image: str, script: str, **changes: Any) -> Launched:
        """Launch a job for the first time."""
        launched = self.launch(attempt, image, script, **changes)
        assert launched.outcome == "started", launched
        return launched

    def io(self, attempt: str) -> Path:
        return self.home / "jobs" / attempt / "io"

    def tree(self, attempt: str) -> Path:
        return self.home / "jobs" / attempt / "workflow"

    def observe(self, attempt: str) -> Observed:
        return self.ask(observe(self.context, attempt))

    def decide(self, attempt: str, launched: Launched | None = None, *, stop: bool = False) -> Decision:
        return decide(Recorded(launched.origin if launched else None, stop), self.observe(attempt))

    def ended(self, attempt: str, seconds: float = 60) -> int | None:
        """Wait until the container has ended; return the code in its exit file."""
        waiting = ["timeout", f"{seconds:g}", "docker", "wait", f"dstack-{attempt}"]
        subprocess.run(waiting, capture_output=True, check=False)  # not a process for each look
        until(lambda: docker_state(attempt) in ("exited", None), f"{attempt} has ended", seconds)
        return self.observe(attempt).exit_code

    def log(self, attempt: str, offset: int = 0) -> bytes:
        return self.ask(read_log(self.context, attempt, offset))

    def run(self, attempt: str, image: str, script: str, **changes: Any) -> tuple[int | None, bytes]:
        """Launch, wait, and return the exit code and the log."""
        self.start(attempt, image, script, **changes)
        return self.ended(attempt), self.log(attempt)

    def _groups(self) -> list[int]:
        assert self.user is not None
        return os.getgrouplist(self.user.name, self.user.uid)

    def _ship(self) -> Snapshot:
        """Commit FILES and put them into the mirror."""
        source = self.folder / "source"
        for path, content in FILES.items():
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            (source / path).write_bytes(content)
        (source / "sub/run.sh").chmod(0o755)

        def git(*words: str, stdin: bytes = b"") -> bytes:
            who = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
            asked = ["git", "-C", str(source), *who, *words]
            return subprocess.run(asked, input=stdin, capture_output=True, check=True).stdout

        git("init", "-q", "-b", "main")
        git("add", "-A")
        git("commit", "-qm", "first")
        commit, tree = git("rev-parse", "HEAD", "HEAD^{tree}").decode().split()
        objects = git("rev-list", "--objects", "--no-walk", commit).decode()
        ids = "".join(f"{line.split()[0]}\n" for line in objects.splitlines())
        snapshot = Snapshot(repo="r", tree=tree, commit=commit, branch="main")
        self.ask(receive(self.context, snapshot, git("pack-objects", "--stdout", "-q", stdin=ids.encode())))
        return snapshot


def docker(*words: str) -> str:
    """Run `docker WORDS`; return its output."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout


def docker_state(attempt: str) -> str | None:
    """Return the state of a job's container, in Docker's words."""
    named = ["--filter", f"name=^dstack-{attempt}$"]
    return docker("ps", "--all", *named, "--format", "{{.State}}").strip() or None


def machine_id() -> str:
    """Return the machine id as templates/host/lib/prelude.sh.j2 finds it: bare machines have no /etc/machine-id."""
    path = Path("/etc/machine-id")
    known = path.read_text().strip() if path.exists() else ""
    return known or hashlib.sha256(f"{os.uname().nodename}\n".encode()).hexdigest()[:32]


def make_image(name: str, programs: Mapping[str, str], links: Mapping[str, str] | None = None) -> None:
    """Make an image from programs of this machine, given by their paths in the image, with their libraries."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as tar:
        placed: dict[str, str] = {}
        for path, program in programs.items():
            source = shutil.which(program)
            assert source, f"{program} is not on this machine"
            placed[path] = source
            said = subprocess.run(["ldd", source], capture_output=True, text=True, check=False).stdout
            placed.update({found: found for found in re.findall(r"(/\S+) \(0x", said)})
        for path, source in placed.items():
            tar.add(source, arcname=path.lstrip("/"))
        for path, target in (links or {}).items():
            link = tarfile.TarInfo(path.lstrip("/"))
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
    done = ["docker", "import", "--change", "ENV PATH=/usr/bin:/bin", "-", name]
    subprocess.run(done, input=content.getvalue(), capture_output=True, check=True)


def tarball(files: Sequence[tuple[str, bytes]], *, whole: bool = True) -> bytes:
    """Make a tar of these files, as the server sends artifacts; optionally cut off between two entries."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for path, data in (*files, *([(TAR_COMPLETE, b"")] if whole else [])):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def printed(process: subprocess.Popen[bytes], wanted: Callable[[bytes], bool]) -> bytes:
    """Read a process's stdout until the condition holds for it, or the stream ends."""
    assert process.stdout is not None
    got = b""
    while not wanted(got):
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            break
        got += piece
    return got
