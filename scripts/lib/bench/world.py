"""Where it is measured: this machine with a Docker, an SSH server and an S3 server of its own, and the rivals."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from measure import NotMeasuredError
from proxy import Proxy

CHECKOUT = Path(__file__).resolve().parents[3]
ACCESS, SECRET, BUCKET = "BenchAccessKey", "BenchSecretKey0123456789", "bench"
RIVALS = {"fab": "fabric", "pyinfra": "pyinfra", "ansible": "ansible-core", "guild": "guildai", "dvc": "dvc"}
"""The programs of other projects, and the packages that have them."""


@dataclass
class World:
    """`work` is a folder for everything, `login` what a person types before a command for the machine, `docker` the
    words of a Docker that works, `image` one with a shell. `identity` logs `user` in on the port `port`."""

    work: Path
    user: str
    port: int
    image: str
    fingerprint: str
    docker: tuple[str, ...]
    small: bool = False
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def identity(self) -> Path:
        return self.work / "id_ed25519"

    def ssh(self, port: int | None = None) -> list[str]:
        """The words of ssh, without configuration and without a connection that is shared: typed anew each time."""
        known = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
        options = [word for each in (*known, "IdentitiesOnly=yes", "IdentityAgent=none") for word in ("-o", each)]
        return ["ssh", "-F", "none", *options, "-i", str(self.identity), "-p", str(port or self.port)]

    def login(self, port: int | None = None) -> list[str]:
        return [*self.ssh(port), f"{self.user}@127.0.0.1"]

    def dstack(self, *words: str | Path) -> str:
        """Run dstack, and return what it prints."""
        done = subprocess.run(["dstack", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotMeasuredError(f"dstack {' '.join(map(str, words))}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def runner(self, name: str = "here", port: int | None = None) -> str:
        """Add the machine as a runner, unless it is one, and return its name."""
        with suppress(NotMeasuredError):
            self.dstack("runners", "check", name)
            return name
        where = f"{self.user}@127.0.0.1:{port or self.port}"
        options = ("--identity", self.identity, "--fingerprint", self.fingerprint, "--docker", " ".join(self.docker))
        self.dstack("runners", "add", where, "--name", name, "--root", self.work / f"host-{name}", *options)
        return name

    def project(self, name: str, workflows: str, files: int = 0) -> Path:
        """Make a repository with these workflows, and so many small files."""
        root = self.work / name
        if not root.exists():
            (root / ".dstack").mkdir(parents=True)
            (root / ".dstack/workflows.yaml").write_text(workflows)
            for number in range(files):
                file = root / f"src/{number % 200}/{number}.py"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"# file {number}\n" + f"value_{number} = {number}\n" * 60)
            self.git(root, "init", "-q")
            self.git(root, "add", "-A")
            self.git(root, "commit", "-qm", "bench")
        return root

    @staticmethod
    def git(root: Path, *words: str) -> None:
        settings = ("user.name=B", "user.email=b@example.org", "gc.auto=0")
        options = [word for setting in settings for word in ("-c", setting)]
        subprocess.run(["git", "-C", root, *options, *words], check=True)

    def size(self, whole: int, small: int) -> int:
        """How much to measure with: `small` for a try."""
        return small if self.small else whole

    @cached_property
    def far(self) -> Proxy:
        """The machine behind a link of 50 ms round trip."""
        return Proxy(self.port, delay=0.025)

    @cached_property
    def s3(self) -> str:
        """The URL of an S3 server, which is started. dstack's server gets its key by the environment."""
        folder = self.work / "s3"
        (folder / BUCKET).mkdir(parents=True)
        port = free_port()
        words = ["serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS},{SECRET}"]
        self.start([self.program("rclone"), *words, "--vfs-cache-mode", "off"])
        os.environ |= {
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return f"http://127.0.0.1:{port}"

    def rclone(self) -> list[str]:
        """The words of rclone with the S3 server as `bench:`, as fast as its documentation says."""
        settings = {"TYPE": "s3", "PROVIDER": "Rclone", "ENDPOINT": self.s3}
        settings |= {"ACCESS_KEY_ID": ACCESS, "SECRET_ACCESS_KEY": SECRET}
        os.environ |= {f"RCLONE_CONFIG_BENCH_{name}": value for name, value in settings.items()}
        return [self.program("rclone"), "--config", "/dev/null", "--transfers", "8", "--checkers", "8"]

    def start(self, command: Sequence[str]) -> None:
        """Start a server, which ends with the bench."""
        with (self.work / "servers.log").open("ab") as log:
            self.started.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    @staticmethod
    def program(name: str) -> str:
        """The path of a program next to dstack's, or on the PATH."""
        found = shutil.which(name, path=f"{CHECKOUT / '.venv/bin'}:{os.environ['PATH']}")
        if found is None:
            raise NotMeasuredError(f"{name} is not installed")
        return found

    def rival(self, name: str) -> str:
        """The path of another project's program, installed into an environment of its own."""
        folder = Path(os.environ.get("DSTACK_BENCH_RIVALS", CHECKOUT / ".venv-rivals")) / RIVALS[name]
        program = folder / "bin" / name
        if not program.exists():
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            words = [folder / "bin/python", "-m", "pip", "install", "--quiet", RIVALS[name]]
            if subprocess.run(words, capture_output=True, check=False).returncode or not program.exists():
                raise NotMeasuredError(f"{RIVALS[name]} can't be installed here")
        return str(program)


@contextmanager
def ending(world: World) -> Iterator[World]:
    """End what the world started."""
    try:
        yield world
    finally:
        for process in world.started:
            process.terminate()
            process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
