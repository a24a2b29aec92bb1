"""What goes wrong. A fault begins, and ends; it says which jobs it may have ended, and which reasons it explains."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from dstack.model.job.reasons import ReasonCode
from tests.chaos.world import Machine, Site

UNREACHABLE = frozenset({ReasonCode.RUNNER_UNREACHABLE, ReasonCode.RUNNER_BEING_CHECKED, ReasonCode.RUNNER_UNUSABLE})
ENDS = frozenset(
    {code for code in ReasonCode if code.name.startswith("LOST_")} | {ReasonCode.KILLED, ReasonCode.DEPENDENCY_FAILED}
)
"""How jobs end that something ended from outside."""
STORAGE = frozenset({ReasonCode.STORAGE_UNAVAILABLE, ReasonCode.UPLOADING})

LOCK = """
import sqlite3, sys, time
database = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def fill(file: Path) -> None:
    """Write to a file until no byte fits on its disk."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while ballast.write(bytes(size)):
                    pass


def use_inodes(folder: Path) -> None:
    """Make files until the disk can hold no further one."""
    with suppress(OSError):
        for number in itertools.count():
            (folder / str(number)).touch()


class Fault:
    """One thing that goes wrong, at a time and for a time. `random` decides what exactly, the same for the same plan.

    `hit` has the attempts that it may have ended: `<job>` or `<job>-<attempt>`.
    """

    explains: ClassVar[frozenset[ReasonCode]] = frozenset()
    needs: ClassVar[str] = ""
    """The kind of storage that it breaks; "" if it fits any."""
    breaks: ClassVar[str] = ""
    """The part that it breaks, if another fault can't break it at the same time."""
    all_jobs: ClassVar[bool] = False
    """Whether it may end every job on its machine."""
    moves_clock: ClassVar[bool] = False

    def __init__(self, site: Site, random: random.Random) -> None:
        self.site = site
        self.random = random
        self.machine: Machine = random.choice(site.machines)
        self.hit: set[str] = set()

    def begin(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Undo it."""

    def __str__(self) -> str:
        return type(self).__name__


class ServerKilled(Fault):
    """kill -9 of the server."""

    def begin(self) -> None:
        self.site.kill()

    def end(self) -> None:
        self.site.serve()


class ServerStopped(Fault):
    """The server's process is stopped for a while, as on a laptop that sleeps."""

    explains = UNREACHABLE

    def begin(self) -> None:
        self.stopped = self.site.running
        self.signal(signal.SIGSTOP)

    def end(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        for process in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(process, number)


class PowerCut(Fault):
    """The server's machine loses power: what was not synced is gone."""

    def begin(self) -> None:
        self.site.cut_power()

    def end(self) -> None:
        self.site.serve()


class DatabaseLocked(Fault):
    """Another process holds the lock of the server's database."""

    explains = frozenset({ReasonCode.SERVER_TROUBLE})

    def begin(self) -> None:
        words = [sys.executable, "-c", LOCK, str(self.site.home.dstack / "server" / "state.db")]
        self.holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.holder.stdout is not None
        self.holder.stdout.readline()

    def end(self) -> None:
        self.holder.communicate()


class ServerDiskFull(Fault):
    """The disk of the server's home has no space left."""

    explains = STORAGE | {ReasonCode.SERVER_DISK_FULL, ReasonCode.SERVER_TROUBLE}

    def begin(self) -> None:
        self.ballast = self.site.disk.path / str(self)
        fill(self.ballast)

    def end(self) -> None:
        self.ballast.unlink(missing_ok=True)


class ServerInodesFull(ServerDiskFull):
    """The disk of the server's home can hold no further file."""

    def begin(self) -> None:
        self.ballast = self.site.disk.path / str(self)
        self.ballast.mkdir()
        use_inodes(self.ballast)

    def end(self) -> None:
        shutil.rmtree(self.ballast)


class ClockJumps(Fault):
    """The server's clock is wrong by two hours for a while; sometimes the server is killed then, too."""

    moves_clock = True

    def begin(self) -> None:
        self.site.clock.write_text(str(self.random.choice([7200, -7200])))
        if self.random.random() < 0.5:
            self.site.kill()
            self.site.serve()

    def end(self) -> None:
        self.site.clock.unlink()


class SshReset(Fault):
    """All connections to a machine break."""

    explains = UNREACHABLE

    def begin(self) -> None:
        self.machine.link.cut()


class SshFrozen(Fault):
    """Connections to a machine neither pass bytes nor end."""

    explains = UNREACHABLE

    def begin(self) -> None:
        self.machine.link.frozen = True

    def end(self) -> None:
        self.machine.link.frozen = False


class SshRefused(Fault):
    """Nothing listens on the machine's SSH port, and open connections break."""

    explains = UNREACHABLE

    def begin(self) -> None:
        self.machine.link.refuse()
        self.machine.link.cut()

    def end(self) -> None:
        self.machine.link.accept()


class SshSlow(Fault):
    """The connection to a machine passes 30 kB per second."""

    explains = UNREACHABLE

    def begin(self) -> None:
        self.machine.link.speed = self.machine.link.sent = 30_000

    def end(self) -> None:
        self.machine.link.speed = self.machine.link.sent = None


class SshdRestarted(Fault):
    """sshd is stopped for a while, and its connections break."""

    breaks = "sshd"
    explains = UNREACHABLE

    def begin(self) -> None:
        self.machine.sshd.cut()
        self.machine.sshd.close()

    def end(self) -> None:
        self.machine.sshd.start()


class SshHangs(Fault):
    """sshd accepts connections and says nothing, and the open ones break."""

    breaks = "sshd"
    explains = UNREACHABLE

    def begin(self) -> None:
        self.machine.sshd.freeze()
        self.machine.link.cut()

    def end(self) -> None:
        self.machine.sshd.thaw()


class DockerRestarted(Fault):
    """dockerd is stopped for a while, and tells all containers to end first, as it does without live-restore."""

    breaks = "dockerd"
    explains = UNREACHABLE | ENDS | {ReasonCode.RUNNER_ERROR}
    all_jobs = True

    def begin(self) -> None:
        if running := self.machine.containers():
            subprocess.run([*self.machine.daemon.command, "stop", "--time", "5", *running], capture_output=True)
        self.machine.daemon.stop()

    def end(self) -> None:
        self.machine.daemon.start()


class MachineDiskFull(Fault):
    """The disk of a machine's user has no space left."""

    explains = UNREACHABLE | {
        ReasonCode.DISK_FULL,
        ReasonCode.NOT_ENOUGH_DISK,
        ReasonCode.ARTIFACT_MISSING,
        ReasonCode.RUNNER_ERROR,
        ReasonCode.CONTAINER_NOT_STARTED,
    }
    all_jobs = True

    def begin(self) -> None:
        self.ballast = self.machine.folder / str(self)
        fill(self.ballast)

    def end(self) -> None:
        self.ballast.unlink(missing_ok=True)


class MachineInodesFull(MachineDiskFull):
    """The disk of a machine's user can hold no further file."""

    def begin(self) -> None:
        self.ballast = self.machine.folder / str(self)
        self.ballast.mkdir()
        use_inodes(self.ballast)

    def end(self) -> None:
        shutil.rmtree(self.ballast, ignore_errors=True)


class DockerKilled(Fault):
    """kill -9 of dockerd. Containers keep running."""

    breaks = "dockerd"
    explains = UNREACHABLE | {ReasonCode.RUNNER_ERROR}

    def begin(self) -> None:
        self.machine.daemon.kill()

    def end(self) -> None:
        self.machine.daemon.start()


class DockerHangs(Fault):
    """dockerd does not answer."""

    breaks = "dockerd"
    explains = UNREACHABLE

    def begin(self) -> None:
        os.kill(self.machine.daemon.pid, signal.SIGSTOP)

    def end(self) -> None:
        os.kill(self.machine.daemon.pid, signal.SIGCONT)


class OnContainer(Fault):
    """Something happens to one running container."""

    def begin(self) -> None:
        found = sorted(self.machine.containers())
        self.container = self.random.choice(found) if found else None
        if self.container:
            self.strike(self.container)

    def strike(self, container: str) -> None:
        raise NotImplementedError

    def docker(self, *words: str) -> None:
        command = [*self.machine.daemon.command, *words]
        subprocess.run(command, capture_output=True, check=False, timeout=60)


class ContainerKilled(OnContainer):
    """Somebody kills a container."""

    explains = ENDS

    def strike(self, container: str) -> None:
        self.hit.add(container.removeprefix("dstack-"))
        self.docker("kill", container)


class ContainerRemoved(ContainerKilled):
    """Somebody removes a container."""

    def strike(self, container: str) -> None:
        self.hit.add(container.removeprefix("dstack-"))
        self.docker("rm", "-f", container)


class ContainerPaused(OnContainer):
    """Somebody pauses a container."""

    def strike(self, container: str) -> None:
        self.docker("pause", container)

    def end(self) -> None:
        if self.container:
            self.docker("unpause", self.container)


class FolderRemoved(OnContainer):
    """Somebody removes a running job's folder from the machine."""

    explains = ContainerKilled.explains | {ReasonCode.ARTIFACT_MISSING, ReasonCode.RUNNER_ERROR}

    def strike(self, container: str) -> None:
        job = container.removeprefix("dstack-")
        self.hit.add(job)
        for folder in self.machine.jobs(job):
            shutil.rmtree(folder, ignore_errors=True)


class S3Refuses(Fault):
    """S3 answers every request with an error."""

    needs = "s3"
    explains = STORAGE

    def begin(self) -> None:
        code = self.random.choice(["SlowDown", "InternalError", "AccessDenied"])
        self.site.world.proxy.refuse = lambda request: code

    def end(self) -> None:
        self.site.world.proxy.refuse = lambda request: None


class S3Cuts(Fault):
    """S3's answers break off."""

    needs = "s3"
    explains = STORAGE

    def begin(self) -> None:
        after = self.random.choice([0, 10, 1000])
        self.site.world.proxy.cut = lambda request: after

    def end(self) -> None:
        self.site.world.proxy.cut = lambda request: None


class S3Frozen(Fault):
    """S3 does not answer."""

    breaks = "s3"
    needs = "s3"
    explains = STORAGE

    def begin(self) -> None:
        self.site.world.s3.freeze()

    def end(self) -> None:
        self.site.world.s3.thaw()


class S3Down(Fault):
    """S3 is not running."""

    breaks = "s3"
    needs = "s3"
    explains = STORAGE

    def begin(self) -> None:
        self.site.world.s3.kill()

    def end(self) -> None:
        self.site.world.s3.start()


FAULTS: tuple[type[Fault], ...] = (
    ServerKilled,
    ServerStopped,
    PowerCut,
    DatabaseLocked,
    ServerDiskFull,
    ServerInodesFull,
    ClockJumps,
    SshReset,
    SshFrozen,
    SshRefused,
    SshSlow,
    SshdRestarted,
    SshHangs,
    DockerKilled,
    DockerRestarted,
    DockerHangs,
    ContainerKilled,
    ContainerRemoved,
    ContainerPaused,
    FolderRemoved,
    MachineDiskFull,
    MachineInodesFull,
    S3Refuses,
    S3Cuts,
    S3Frozen,
    S3Down,
)
