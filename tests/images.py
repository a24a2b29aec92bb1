"""Docker images made for the tests, without a registry.

Each has a label with a hash of its contents. The last test session that uses an image removes it; images that were
there before are used as they are and never changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
STAND_INS = ROOT / "tests" / "data" / "image"
LABEL = "dstack.made-by-tests"

BUSYBOX = "dstack-test/busybox:1"
"""sh and the rest of busybox."""
PYTHON = "python:3.11-slim"
"""bash, coreutils, git and Python, with stand-ins for pip and curl."""
TENSORFLOW = "tensorflow/tensorflow:1.15.0-py3"
"""The same, under the name in the founding example."""

KINDS = {BUSYBOX: "busybox", PYTHON: "python", TENSORFLOW: "python"}


class Images:
    """The images of one Docker daemon, which the command line `docker` reaches.

    Their root file systems are made in `folder`. `shared`: other test sessions may use the daemon, too.
    """

    def __init__(self, folder: Path, docker: Sequence[str] = ("docker",), *, shared: bool = False) -> None:
        self._folder = folder
        self._docker = tuple(docker)
        self._sums: dict[str, str] = {}
        self._turn = lock("turn") if shared else None
        self._use = lock("use") if shared else None

    def make(self, *names: str) -> None:
        """Make the images that are missing. From now on this session counts as one of their users."""
        with self._taking_turns():
            if self._use is not None:
                fcntl.flock(self._use, fcntl.LOCK_SH)
            for name in names:
                if not self._present(name):
                    self._import(name)

    def beside(self, docker: Sequence[str]) -> Images:
        """The images of another daemon that only this session uses."""
        return Images(self._folder, docker)

    def close(self) -> None:
        """Remove the images that test sessions made, unless another session still uses them."""
        with self._taking_turns():
            if not self._used_by_others():
                for name in KINDS:
                    if self._made_of(name):
                        self._run("rmi", "-f", name)
        for descriptor in (self._turn, self._use):
            if descriptor is not None:
                os.close(descriptor)

    @contextlib.contextmanager
    def _taking_turns(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def _used_by_others(self) -> bool:
        if self._use is None:
            return False
        try:
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False

    def _present(self, name: str) -> bool:
        """Whether the image exists. One made by tests must have the contents that it would get now."""
        made_of = self._made_of(name)
        return made_of is not None and made_of in ("", self._sum(KINDS[name]))

    def _made_of(self, name: str) -> str | None:
        """Return the hash in an image's label: "" if tests did not make it, None if there is no such image."""
        asked = [*self._docker, "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', name]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def _import(self, name: str) -> None:
        kind = KINDS[name]
        changes = (f"LABEL {LABEL}={self._sum(kind)}", "ENV PATH=/usr/local/bin:/usr/bin:/bin", 'CMD ["sh"]')
        flags = [word for change in changes for word in ("--change", change)]
        self._run("import", *flags, str(self._tarball(kind)), name)

    def _run(self, *arguments: str) -> None:
        done = subprocess.run([*self._docker, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"

    def _sum(self, kind: str) -> str:
        """Return the sha256 of an image's root file system."""
        if kind not in self._sums:
            self._sums[kind] = hashlib.sha256(self._tarball(kind).read_bytes()).hexdigest()
        return self._sums[kind]

    def _tarball(self, kind: str) -> Path:
        """Make an image's root file system."""
        path = self._folder / f"{kind}.tar"
        if not path.exists():
            program = [sys.executable, str(ROOT / "scripts" / "lib" / "make_image.py"), kind]
            with path.open("wb") as out:
                subprocess.run(
                    [*program, "--add", str(STAND_INS)] if kind == "python" else program, stdout=out, check=True
                )
        return path


def lock(name: str) -> int:
    """Open the file that this user's test sessions lock."""
    path = Path(tempfile.gettempdir()) / f"dstack-test-images-{os.getuid()}.{name}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
