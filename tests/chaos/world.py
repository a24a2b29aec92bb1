"""What dstack runs on in a chaos test: machines, storage, and a server on a disk whose power can be cut."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dstack.client.client import Client
from dstack.client.embedded import answers, endpoint
from dstack.errors import DstackError
from dstack.model.api import wire
from tests.environment import account
from tests.environment.account import Account
from tests.environment.daemon import Daemon, ended
from tests.environment.power_cut import Disk
from tests.environment.product import Home, forked, servers
from tests.environment.proxy import Proxy
from tests.environment.s3 import BUCKET, S3
from tests.environment.sshd import Sshd
from tests.environment.throttle import Throttle
from tests.environment.waiting import until
from tests.images import BUSYBOX, Images

MACHINES = 2
DISK = "size=64m,nr_inodes=8k,mode=0700"
"""The disk of a machine's user."""


class Machine:
    """A machine with its own Docker and SSH server. The server reaches it through `link`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.name = f"machine{number}"
        self.root = f"chaos{number}"
        self.parent = folder
        self.daemon = Daemon(folder / f"docker{number}")

    def open(self, user: Account) -> None:
        """Let this user in."""
        self.user = user
        self.folder.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", DISK, "tmpfs", self.folder], check=True)
        os.chown(self.folder, user.uid, user.home.stat().st_gid)
        self.sshd = Sshd(self.parent / f"sshd-{self.name}", user.name)
        self.sshd.start()
        self.link = Throttle(self.sshd.port)

    @property
    def folder(self) -> Path:
        """A small disk of its own, with a folder for each server that has used it."""
        return self.user.home / self.root

    def containers(self, *, everything: bool = False) -> list[str]:
        """The names of dstack's containers."""
        words = ["ps", "--filter", "name=dstack-", "--format", "{{.Names}}", *(["--all"] if everything else [])]
        done = subprocess.run([*self.daemon.command, *words], capture_output=True, text=True, timeout=60)
        return done.stdout.split()

    def clear(self, root: str) -> None:
        """Remove the containers, and what dstack left in this folder."""
        if left := self.containers(everything=True):
            subprocess.run([*self.daemon.command, "rm", "-f", *left], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", self.folder / root], check=True)

    def jobs(self, job: str = "*") -> list[Path]:
        """The folders of jobs on it."""
        return sorted(self.folder.glob(f"*/*/*/jobs/{job}"))

    def close(self) -> None:
        self.link.close()
        self.sshd.close()
        self.daemon.close()
        subprocess.run(["umount", "--lazy", self.folder], check=True)


class World:
    """Everything that lasts for all plans."""

    def __init__(self, machines: int = MACHINES) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dc-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.witness = self.folder / "witness"
        self.witness.mkdir()
        self.machines = [Machine(self.folder, number) for number in range(1, machines + 1)]
        for machine in self.machines:
            machine.daemon.start()
            Images(self.folder, machine.daemon.command).make(BUSYBOX)
        group = account.docker_group(self.machines[0].daemon.socket)
        self.user = account.create(f"dstack-c-{os.getpid()}", self.folder / "user", group)
        for machine in self.machines:
            machine.open(self.user)
        (self.folder / "s3").mkdir()
        self.s3 = S3(self.folder / "s3")
        self.s3.start()
        self.s3_link = Throttle(self.s3.port)
        self.proxy = Proxy(self.s3_link.port)
        self._sites: dict[str, Site] = {}

    def site(self, storage: str) -> Site:
        """A server with these machines as its runners, which lasts for many plans. `storage`: folder or s3."""
        if storage not in self._sites:
            self._sites[storage] = Site(self, storage, {})
            self._sites[storage].start()
        return self._sites[storage]

    def forget(self, storage: str) -> None:
        """Let the next plan have a new server."""
        if storage in self._sites:
            self._sites.pop(storage).close()

    @contextmanager
    def fresh(self, storage: str, environment: dict[str, str] | None = None) -> Iterator[Site]:
        """A new server without history, for the body."""
        site = Site(self, storage, environment or {})
        try:
            site.start()
            yield site
        finally:
            site.close()

    def close(self) -> None:
        for storage in tuple(self._sites):
            self.forget(storage)
        self.proxy.close()
        self.s3_link.close()
        self.s3.close()
        for machine in self.machines:
            machine.close()
        account.remove(self.user)
        shutil.rmtree(self.folder)


class Site:
    """One server with its home on a disk of its own, from its first start to its end."""

    def __init__(self, world: World, storage: str, environment: dict[str, str]) -> None:
        self.world = world
        self.storage = storage
        self.home = Home()
        self.disk = Disk(self.home.path)
        self.home.dstack = self.disk.path / "home"
        self.home.environment |= {"DSTACK_HOME": str(self.home.dstack), **world.s3.environment}
        self.armed = self.home.path / "armed"
        self.clock = self.home.path / "clock"
        self.home.environment |= {"CHAOS_ARMED": str(self.armed), "CHAOS_CLOCK": str(self.clock)}
        self.environment = environment
        self.others: set[int] = set()
        """The process ids of what else uses the server's disk."""
        self.power = threading.Lock()

    @property
    def database(self) -> Path:
        """The server's database."""
        return self.home.dstack / "server" / "state.db"

    @property
    def machines(self) -> list[Machine]:
        return self.world.machines

    def start(self) -> None:
        """Start the server, and add the machines."""
        for left in self.world.witness.iterdir():
            left.unlink()
        self.home.serve(self.environment)
        for machine in self.machines:
            address = f"{machine.sshd.user}@127.0.0.1:{machine.link.port}"
            self.must(
                *(
                    "runners",
                    "add",
                    address,
                    "--name",
                    machine.name,
                    "--root",
                    f"~/{machine.root}/{self.home.path.name}",
                ),
                *("--identity", str(machine.sshd.identity), "--fingerprint", machine.sshd.fingerprint),
                *("--docker", " ".join(machine.daemon.command), "--allow-mount", str(self.world.witness)),
            )
        if self.storage == "s3":
            self.world.s3.restore()
            self.must("config", "--storage", f"s3://{BUCKET}/chaos", "--endpoint-url", self.world.proxy.url)
        self.armed.touch()

    @property
    def running(self) -> list[int]:
        """The process ids of the servers."""
        return servers(self.home.dstack)

    def serve(self, environment: dict[str, str] | None = None) -> None:
        """Start the server again, unless a command has done so. `environment` is added to the home's."""
        if not self.running:
            self.home.serve_again(environment)
            until(lambda: answers(self.home.dstack), "the server answers again", 60)

    @contextmanager
    def kept_up(self, environment: dict[str, str]) -> Iterator[None]:
        """Start the server again with this environment whenever it ends during the body. One that a command was quicker
        to start is killed."""
        over = threading.Event()

        def gone() -> bool:
            return ended(forked[self.home.dstack])

        def keep() -> None:
            while not over.wait(0.02):
                if gone():
                    with self.no_start():
                        self.kill()
                        self.home.launch(environment)
                        until(lambda: gone() or answers(self.home.dstack), "the server answers or has ended", 60)

        thread = threading.Thread(target=keep)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.serve()

    @contextmanager
    def no_start(self) -> Iterator[None]:
        """Keep commands from starting the server during the body."""
        with (self.home.dstack / "server" / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def kill(self) -> None:
        """kill -9 of the server."""
        killed = self.running
        for process in killed:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        until(lambda: all(map(ended, killed)), "the server has ended")

    def cut_power(self) -> None:
        """Kill everything on the server's machine, and forget what was not synced. One cut after the other: a second
        one in the middle of the first would find a disk that has been replaced, and bring back an older one."""
        with self.power, self.no_start():
            killed = [*self.running, *self.others]
            self.disk.cut(killed)
            until(lambda: all(map(ended, killed)), "the server has ended")

    def must(self, *arguments: str) -> str:
        """Run a command that has to work; return its output."""
        done = self.home.run(*arguments)
        assert done.returncode == 0, f"dstack {' '.join(arguments)}: {done.returncode}: {done.stderr}"
        return done.stdout

    def insist(self, *arguments: str) -> None:
        """Repeat a command until it works."""
        until(lambda: self.home.run(*arguments).returncode == 0, f"dstack {' '.join(arguments)} works", 60)

    def ask(self, *arguments: str) -> Any:
        """The JSON that a command prints, or None while the server can't answer."""
        done = self.home.run(*arguments, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def jobs(self) -> list[dict[str, Any]] | None:
        """The newest jobs as `dstack jobs --json` prints them, or None while the server can't answer. It starts neither
        a program, which costs ten times as much, nor the server."""
        try:
            found = Client(endpoint(self.home.dstack)).jobs(limit=50)
        except DstackError:
            return None
        shown: list[dict[str, Any]] = json.loads(wire.encode(found))
        return shown

    def keep(self, folder: Path) -> None:
        """Copy the server's log and database to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for file in (*self.database.parent.glob("server.log*"), *self.database.parent.glob("state.db*")):
            shutil.copy(file, folder)

    def close(self) -> None:
        self.kill()
        for machine in self.machines:
            machine.clear(self.home.path.name)
        self.disk.close()
        shutil.rmtree(self.home.path)
