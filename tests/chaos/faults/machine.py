"""What goes wrong on a machine that runs jobs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

from dstack.model.job.reasons import ReasonCode
from tests.chaos.faults.fault import UNREACHABLE, Fault, fill, use_inodes


class OnMachine(Fault):
    """Something is wrong with a machine, or with its Docker."""

    explains = UNREACHABLE
    one_machine = True


class DockerRestarted(OnMachine):
    """dockerd is stopped for a while, and tells all containers to end first, as it does without live-restore."""

    breaks = "dockerd"
    explains = UNREACHABLE | {ReasonCode.LOST_DOCKER_RESTARTED, ReasonCode.LOST_STOPPED, ReasonCode.KILLED}
    all_jobs = True

    def begin(self) -> None:
        if running := self.machine.containers():
            subprocess.run([*self.machine.daemon.command, "stop", "--time", "5", *running], capture_output=True)
        self.machine.daemon.stop()

    def end(self) -> None:
        self.machine.daemon.start()


class DockerKilled(OnMachine):
    """kill -9 of dockerd. Containers keep running. Of one that is removed meanwhile, nobody can tell by what."""

    breaks = "dockerd"
    explains = UNREACHABLE | {ReasonCode.LOST_DOCKER_RESTARTED}

    def begin(self) -> None:
        self.machine.daemon.kill()

    def end(self) -> None:
        self.machine.daemon.start()


class DockerHangs(OnMachine):
    """dockerd does not answer."""

    breaks = "dockerd"

    def begin(self) -> None:
        os.kill(self.machine.daemon.pid, signal.SIGSTOP)

    def end(self) -> None:
        os.kill(self.machine.daemon.pid, signal.SIGCONT)


class MachineDiskFull(OnMachine):
    """The disk of a machine's user has no space left."""

    breaks = "disk"
    explains = UNREACHABLE | {ReasonCode.DISK_FULL, ReasonCode.NOT_ENOUGH_DISK, ReasonCode.ARTIFACT_MISSING}
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
        self.ballast.mkdir(exist_ok=True)
        use_inodes(self.ballast)

    def end(self) -> None:
        shutil.rmtree(self.ballast, ignore_errors=True)


class OnContainer(OnMachine):
    """Something happens to one running container."""

    explains = frozenset()

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

    explains = frozenset({ReasonCode.KILLED})

    def strike(self, container: str) -> None:
        self.hit.add(container.removeprefix("dstack-"))
        self.docker("kill", container)


class ContainerRemoved(OnContainer):
    """Somebody removes a container."""

    explains = frozenset({ReasonCode.LOST_REMOVED, ReasonCode.KILLED})

    def strike(self, container: str) -> None:
        self.hit.add(container.removeprefix("dstack-"))
        self.docker("rm", "-f", container)


class ContainerPaused(OnContainer):
    """Somebody pauses a container."""

    explains = frozenset({ReasonCode.CONTAINER_PAUSED})

    def strike(self, container: str) -> None:
        self.docker("pause", container)

    def end(self) -> None:
        if self.container:
            self.docker("unpause", self.container)


class FolderRemoved(OnContainer):
    """Somebody removes a running job's folder from the machine."""

    explains = frozenset({ReasonCode.LOST_REMOVED, ReasonCode.ARTIFACT_MISSING})

    def strike(self, container: str) -> None:
        job = container.removeprefix("dstack-")
        self.hit.add(job)
        for folder in self.machine.jobs(job):
            shutil.rmtree(folder, ignore_errors=True)
