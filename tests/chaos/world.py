"""What dstack runs on in a chaos test: machines, storage, and a server on a disk whose power can be cut."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dstack.client.embedded import answers
from tests.environment import account
from tests.environment.account import Account
from tests.environment.daemon import Daemon
from tests.environment.power_cut import Disk
from tests.environment.product import Home, servers
from tests.environment.proxy import Proxy
from tests.environment.s3 import BUCKET, S3
from tests.environment.sshd import Sshd
from tests.environment.throttle import Throttle
from tests.environment.waiting import until
from tests.images import BUSYBOX, Images

MACHINES = 2


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
        self.sshd = Sshd(self.parent / f"sshd-{self.name}", user.name)
        self.sshd.start()
        self.link = Throttle(self.sshd.port)

    @property
    def folder(self) -> Path:
        """Where dstack's files are on it."""
        return self.user.home / self.root

    def containers(self, *, everything: bool = False) -> list[str]:
        """The names of dstack's containers."""
        words = ["ps", "--filter", "name=dstack-", "--format", "{{.Names}}", *(["--all"] if everything else [])]
        done = subprocess.run([*self.daemon.command, *words], capture_output=True, text=True, timeout=60)
        return done.stdout.split()

    def clear(self) -> None:
        """Remove everything that dstack left on it."""
        if left := self.containers(everything=True):
            subprocess.run([*self.daemon.command, "rm", "-f", *left], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", self.folder], check=True)

    def close(self) -> None:
        self.link.close()
        self.sshd.close()
        self.daemon.close()


class World:
    """Everything that lasts for all plans. `fresh` gives each plan its own server."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dc-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.witness = self.folder / "witness"
        self.witness.mkdir()
        self.machines = [Machine(self.folder, number) for number in range(1, MACHINES + 1)]
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
        self.proxy = Proxy(self.s3.port)

    @contextmanager
    def fresh(self, storage: str, environment: dict[str, str] | None = None) -> Iterator[Site]:
        """A new server with these machines as its runners and no history. `storage`: folder or s3."""
        site = Site(self, storage, environment or {})
        try:
            site.start()
            yield site
        finally:
            site.close()

    def close(self) -> None:
        self.proxy.close()
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
        self.environment = {**environment, "CHAOS_ARMED": str(self.armed)}

    @property
    def machines(self) -> list[Machine]:
        return self.world.machines

    def start(self) -> None:
        """Start the server, and add the machines."""
        for left in self.world.witness.iterdir():
            left.unlink()
        self.home.serve(self.environment)
        for machine in self.machines:
            machine.clear()
            address = f"{machine.sshd.user}@127.0.0.1:{machine.link.port}"
            self.must(
                *("runners", "add", address, "--name", machine.name, "--root", f"~/{machine.root}"),
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

    def serve(self) -> None:
        """Start the server again, unless a command has done so."""
        if not self.running:
            self.home.serve_again()
            until(lambda: answers(self.home.dstack), "the server answers again", 60)

    def cut_power(self) -> None:
        """Kill the server, and forget what it did not sync."""
        processes = self.running
        self.disk.cut(processes)
        until(lambda: not set(processes) & set(self.running), "the server has ended")

    def must(self, *arguments: str) -> str:
        """Run a command that has to work; return its output."""
        done = self.home.run(*arguments)
        assert done.returncode == 0, f"dstack {' '.join(arguments)}: {done.returncode}: {done.stderr}"
        return done.stdout

    def ask(self, *arguments: str) -> Any:
        """The JSON that a command prints, or None while the server can't answer."""
        done = self.home.run(*arguments, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else None

    def close(self) -> None:
        for process in self.running:
            os.kill(process, 9)
        until(lambda: not self.running, "the server has ended")
        for machine in self.machines:
            machine.clear()
        self.disk.close()
        shutil.rmtree(self.home.path)
