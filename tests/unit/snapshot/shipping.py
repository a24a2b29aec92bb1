"""Takes a working tree to a job without Docker and SSH: snapshot, server's mirror, host's mirror, job."""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from dstack import render
from dstack.commands.job.receive_code import checkout_values
from dstack.mirror.mirror import Mirror, MissingBaseError
from dstack.model.code.snapshot import Snapshot
from dstack.snapshot.take import take

Manifest = dict[bytes, tuple[str, int, str]]

HOST_GIT = f"{os.environ['HOST_GIT']}:" if "HOST_GIT" in os.environ else ""
"""The folder with the host's git, to test one that differs from the client's."""

IDENTITY = {
    "GIT_AUTHOR_NAME": "A",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(folder: Path, *arguments: str | bytes, ok: bool = True, **variables: str) -> bytes:
    """git as a user types it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {**IDENTITY, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **variables}
    done = subprocess.run(["git", "-C", folder, *arguments], env=environment, capture_output=True)
    assert not ok or done.returncode == 0, (arguments, done.stderr)
    return done.stdout


def manifest(root: Path) -> Manifest:
    """Return type, mode and content of everything outside `.git`; the root is `.`."""
    found: Manifest = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        folders[:] = [name for name in folders if name != b".git"]
        found[os.path.relpath(folder, base)] = ("folder", stat.S_IMODE(os.lstat(folder).st_mode), "")
        for name in [*files, *(name for name in folders if os.path.islink(os.path.join(folder, name)))]:
            path = os.path.join(folder, name)
            if name != b".git" and (os.path.islink(path) or os.path.isfile(path)):
                found[os.path.relpath(path, base)] = _describe(path)
    return found


def _describe(path: bytes) -> tuple[str, int, str]:
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return ("link", 0, os.fsdecode(os.readlink(path)))
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    return ("file", stat.S_IMODE(found.st_mode), digest)


@dataclass
class Answer:
    """A host script's answer."""

    status: int
    values: dict[str, str]
    stderr: str


@dataclass
class Road:
    """A server's mirror and a host, in two folders."""

    folder: Path
    repo: str = ""
    most: int = 10**9

    @property
    def mirror(self) -> Mirror:
        return Mirror(self.folder / "server" / f"{self.repo}.git")

    @property
    def base(self) -> Path:
        return self.folder / "host root"

    @property
    def host_mirror(self) -> Path:
        return self.base / "mirrors" / f"{self.repo}.git"

    def submit(self, project: Path, *depths: int) -> Snapshot:
        """Send the working tree to the server's mirror."""
        with take(project, depths=depths or (1,)) as taken:
            self.repo = taken.snapshot.repo
            try:
                self.mirror.receive(taken.snapshot, taken.pack())
            except MissingBaseError as missing:
                try:
                    self.mirror.receive(taken.snapshot, taken.pack(missing.known))
                except MissingBaseError:
                    self.mirror.receive(taken.snapshot, taken.full_pack())
            return taken.snapshot

    def launch(self, snapshot: Snapshot, attempt: str = "a", depth: int | None = None) -> Path:
        """Check out, send what is missing and check out again, as the engine does. Return the job's tree."""
        answer = self.checkout(snapshot, attempt, depth)
        if answer.values.get("need") == "code":
            known = [name for kind in ("commits", "trees", "histories") for name in answer.values.get(kind, "").split()]
            with self.mirror.pack(snapshot, known) as pack:
                received = self.receive(snapshot, pack.read_bytes())
            if received.values.get("need") == "full":
                with self.mirror.pack(snapshot) as pack:
                    received = self.receive(snapshot, pack.read_bytes())
            assert received.values == {"received": "ok"}, received
            answer = self.checkout(snapshot, attempt, depth)
        assert (answer.status, answer.values) == (0, {"reached": "end"}), answer
        return self.job(attempt) / "workflow"

    def job(self, attempt: str) -> Path:
        return self.base / "jobs" / attempt

    def checkout(self, snapshot: Snapshot, attempt: str = "a", depth: int | None = None) -> Answer:
        return self._sh("code/_checkout", snapshot, attempt, b"", depth)

    def receive(self, snapshot: Snapshot, pack: bytes) -> Answer:
        return self._sh("code/receive", snapshot, "", pack)

    def spare(self, snapshot: Snapshot) -> Path:
        """Make a spare checkout for the next job. Return its folder."""
        answer = self._sh("code/spare", snapshot, "", b"")
        assert (answer.status, answer.values) == (0, {}), answer
        return self.host_mirror.with_suffix(".git.spare")

    def script(self, template: str, snapshot: Snapshot, attempt: str, depth: int | None = None) -> str:
        job = self.job(attempt)
        head = f"set -eu\numask 077\nLC_ALL=C\nexport LC_ALL\nbase={shlex.quote(str(self.base))}\n"
        head += f'job={shlex.quote(str(job))}\nio=$job/io\nmkdir -p "$base/jobs/{attempt}/io"\n'
        values = checkout_values(snapshot, depth)
        body = render.text(template, most=self.most, **values)
        if template == "code/_checkout":
            body = render.text("code/_git", **values) + body
        end = "echo reached=end\n" if template == "code/_checkout" else ""
        return f"main() {{\n{head}{body}\n{end}}}\nmain\n"

    def _sh(self, template: str, snapshot: Snapshot, attempt: str, stdin: bytes, depth: int | None = None) -> Answer:
        # The host's user may have such variables set.
        environment = {**os.environ, "GIT_DIR": "/nonexistent", "GIT_INDEX_FILE": "/nonexistent"}
        environment["PATH"] = HOST_GIT + environment["PATH"]
        command = ["sh", "-c", self.script(template, snapshot, attempt, depth)]
        done = subprocess.run(command, input=stdin, capture_output=True, env=environment)
        pairs = (line.partition("=") for line in done.stdout.decode().splitlines())
        return Answer(done.returncode, {key: value for key, _, value in pairs}, done.stderr.decode())

    def in_job(self, tree: Path, *arguments: str, ok: bool = True) -> bytes:
        """Run git in the job's tree, with the mirror's objects where a container has them mounted."""
        pointers = list(tree.rglob(".git/objects/info/alternates"))
        said = {pointer: pointer.read_text() for pointer in pointers}
        assert set(said.values()) <= {"/.dstack/objects\n"}
        for pointer in pointers:
            pointer.write_text(f"{self.host_mirror}/objects\n")
        try:
            return git(tree, *arguments, ok=ok)
        finally:
            for pointer in pointers:
                pointer.write_text(said[pointer])
