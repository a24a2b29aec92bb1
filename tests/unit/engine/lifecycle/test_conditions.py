"""What is told while a step is repeated is true in every phase of a job, and says since when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.engine.lifecycle.conditions import condition
from dstack.errors import CommandError, DstackError, EngineSilentError, HostUnreachableError, StorageError
from dstack.model.job.job import Job
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from tests.unit.engine.lifecycle.machine import Machine, World

NOON = "2026-06-01T12:00:00.000Z"
FULL = CommandError("observing the job", 1, "printf: I/O error\nno space left on device\n")
SILENT = EngineSilentError("Docker", "box", "Cannot connect")
STORAGE = StorageError("S3 does not answer")
ANYWAY = "; to end it anyway: dstack stop --abort run"
CHECK = "to see what helps: dstack runners check box"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    world = World(tmp_path, Machine())
    yield replace(world.job, runner="box")
    world.store.close()


@pytest.mark.parametrize(
    ("status", "trouble", "code", "text"),
    [
        (Status.PREPARING, FULL, ReasonCode.DISK_FULL, f"the disk of box has been full since {NOON}; {CHECK}"),
        (Status.RUNNING, FULL, ReasonCode.DISK_FULL, f"the disk of box has been full since {NOON}; {CHECK}"),
        (
            Status.UPLOADING,
            FULL,
            ReasonCode.DISK_FULL,
            f"the disk of box has been full since {NOON}, so its artifacts can't be collected; {CHECK}{ANYWAY}",
        ),
        (
            Status.RUNNING,
            SILENT,
            ReasonCode.RUNNER_UNREACHABLE,
            f"Docker on box has not answered since {NOON}: Cannot connect",
        ),
        (
            Status.RUNNING,
            HostUnreachableError("box can't be reached"),
            ReasonCode.RUNNER_UNREACHABLE,
            f"runner 'box' has not answered since {NOON}: box can't be reached",
        ),
        (
            Status.UPLOADING,
            STORAGE,
            ReasonCode.STORAGE_UNAVAILABLE,
            f"the artifacts could not be stored since {NOON}: S3 does not answer{ANYWAY}",
        ),
        (
            Status.PREPARING,
            STORAGE,
            ReasonCode.STORAGE_UNAVAILABLE,
            f"the launch has waited for the artifact store since {NOON}: S3 does not answer{ANYWAY}",
        ),
    ],
)
def test_what_is_told(job: Job, status: Status, trouble: DstackError, code: ReasonCode, text: str) -> None:
    reason = condition(replace(job, status=status), trouble, NOON)

    assert (reason.code, reason.text) == (code, text)


def test_a_stopped_job_says_what_ends_it(job: Job) -> None:
    reason = condition(replace(job, status=Status.RUNNING, stop="stop"), SILENT, NOON)

    assert reason.text.endswith(ANYWAY)
