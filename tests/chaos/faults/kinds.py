"""All faults."""

from __future__ import annotations

from tests.chaos.faults import connection, machine, server, storage
from tests.chaos.faults.fault import Fault

FAULTS: tuple[type[Fault], ...] = (
    server.ServerKilled,
    server.ServerStopped,
    server.PowerCut,
    server.DatabaseLocked,
    server.DatabasePutBack,
    server.HomeCopied,
    server.ServerDiskFull,
    server.ServerInodesFull,
    server.ClockJumps,
    connection.SshReset,
    connection.SshFrozen,
    connection.SshRefused,
    connection.SshSlow,
    connection.SshLossy,
    connection.SshdRestarted,
    connection.SshdKilled,
    connection.SshHangs,
    machine.DockerKilled,
    machine.DockerRestarted,
    machine.DockerHangs,
    machine.ContainerKilled,
    machine.ContainerRemoved,
    machine.ContainerPaused,
    machine.FolderRemoved,
    machine.MachineDiskFull,
    machine.MachineInodesFull,
    storage.S3Refuses,
    storage.S3Cuts,
    storage.S3Slow,
    storage.S3Frozen,
    storage.S3Down,
)
