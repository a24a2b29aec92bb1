"""Plans: runs, and faults that happen to them. Every promise holds."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import main
from tests.chaos.faults.connection import SshdRestarted, SshFrozen, SshRefused
from tests.chaos.faults.fault import Fault
from tests.chaos.faults.machine import (
    ContainerKilled,
    DockerHangs,
    DockerRestarted,
    FolderRemoved,
    MachineInodesFull,
)
from tests.chaos.faults.server import (
    ClockJumps,
    DatabaseLocked,
    DatabasePutBack,
    HomeCopied,
    PowerCut,
    ServerDiskFull,
    ServerKilled,
)
from tests.chaos.plan import Plan, PlannedFault, PlannedRun, Work
from tests.chaos.play import play
from tests.chaos.world import World

SHORT, MEDIUM = Work(lines=50, size=300_000, seconds=0.5), Work(lines=50, size=300_000, seconds=3)


def single(number: int, storage: str, work: Work, *faults: tuple[type[Fault], float, float]) -> Plan:
    """One run with one job on each machine, and these faults: their kind, begin and length in seconds."""
    runs = tuple(PlannedRun(f"b{number}r{run}", 0, (work,)) for run in (1, 2))
    return Plan(number, storage, runs, tuple(PlannedFault(*fault, seed=1) for fault in faults))


BROKE = {
    "a power cut after a submission": single(1, "folder", SHORT, (PowerCut, 0.8, 1)),
    "a power cut while a job runs": single(2, "s3", MEDIUM, (PowerCut, 2.5, 0.5)),
    "a full disk of the server while a job runs": single(3, "s3", MEDIUM, (ServerDiskFull, 1.5, 2)),
    "a server that is killed while it receives code": single(4, "folder", SHORT, (ServerKilled, 0.3, 0.1)),
    "a frozen connection, and a server that is killed meanwhile": single(
        5, "folder", SHORT, (SshFrozen, 0.5, 3), (ServerKilled, 1.5, 0.5)
    ),
    "a locked database while a job ends": single(6, "folder", MEDIUM, (DatabaseLocked, 2, 3)),
    "Docker that hangs while a job ends": single(7, "s3", MEDIUM, (DockerHangs, 2, 3)),
    "no inodes for a job's folder": single(8, "folder", SHORT, (MachineInodesFull, 0, 3)),
    "sshd restarted at a submission, a killed container": single(
        9, "folder", MEDIUM, (SshdRestarted, 0.1, 2), (ContainerKilled, 4, 0.1)
    ),
    "a power cut, and a job's folder removed meanwhile": single(
        10, "folder", MEDIUM, (PowerCut, 1.5, 5), (FolderRemoved, 2.5, 0.1)
    ),
    "a full disk of the server while it sends code": single(11, "folder", SHORT, (ServerDiskFull, 0.2, 3)),
    "a power cut while the database is locked": single(12, "s3", MEDIUM, (DatabaseLocked, 2, 1.5), (PowerCut, 2.5, 3)),
    "a submission that is cut off, and a clock that was set back meanwhile": single(
        13, "folder", SHORT, (ClockJumps, 0, 3), (ServerKilled, 0.3, 0.1)
    ),
    "no inodes for the fence of a launch that broke off": single(
        14, "s3", SHORT, (SshRefused, 0.6, 1), (MachineInodesFull, 0.8, 3)
    ),
    "a database that was put back while jobs are launched": single(15, "folder", SHORT, (DatabasePutBack, 0.2, 1.5)),
    "a database that was put back after jobs have ended": single(
        16, "s3", SHORT, (DatabasePutBack, 0.4, 6), (SshFrozen, 5, 4)
    ),
    "a copy of the home while jobs are launched": single(17, "folder", MEDIUM, (HomeCopied, 0.3, 3)),
    "Docker stopped while the server's disk is full": single(
        18, "folder", MEDIUM, (DockerRestarted, 2, 3), (ServerDiskFull, 2.5, 2)
    ),
}
"""What broke a promise once."""


def test_twenty_plans() -> None:
    assert main(["--plans", "20", "--at-once", "3", "--minutes", "30"]) == 0


@pytest.mark.parametrize("name", BROKE)
def test_what_broke_once(world: World, name: str) -> None:
    assert play(world, BROKE[name]) == []
