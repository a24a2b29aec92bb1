"""A job whose folder is gone has ended as its stored artifacts say; without any, it is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.engine.lifecycle import drive, watch
from dstack.model.job.job import Origin
from dstack.model.job.manifest import PARTIAL, Manifest
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from tests.unit.engine.lifecycle.machine import Machine, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """The record says that the job runs, but nothing of it is on its machine."""
    monkeypatch.setattr(drive, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.0)
    machine = Machine()
    machine.claim = "gone"
    world = World(tmp_path, machine)
    world.store.jobs.change("abc", status=Status.RUNNING, launching=True, launch=Origin("b1", "7:100"))
    return world


def ends(world: World, status: str, *, attempt: int = 1, code: int | None = None) -> None:
    """Store artifacts with this status, and drive the job to its end."""
    manifest = Manifest("abc", "run", "job", status, (), attempt, code)
    asyncio.run(world.context.artifacts.current.commit(manifest))
    asyncio.run(world.drive().run())


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        ("done", 0, None),
        ("failed", 3, ReasonCode.EXIT_CODE),
        ("stopped", 143, ReasonCode.STOPPED_BY_USER),
        ("lost", 125, ReasonCode.LOST_REMOVED),
    ],
)
def test_it_ended_as_the_artifacts_say(world: World, status: str, code: int, reason: ReasonCode | None) -> None:
    ends(world, status, code=code)

    assert (world.job.status.value, world.job.exit_code, world.job.reason_code) == (status, code, reason)
    assert world.machine.begun == 0


@pytest.mark.parametrize(("status", "attempt"), [(PARTIAL, 1), ("failed", 0)])
def test_artifacts_of_a_sync_or_of_an_earlier_attempt_say_nothing(world: World, status: str, attempt: int) -> None:
    ends(world, status, attempt=attempt)

    assert (world.job.status, world.job.reason_code) == (Status.LOST, ReasonCode.LOST_REMOVED)


def test_a_job_that_was_uploading_is_done_if_all_of_it_is_stored(world: World) -> None:
    # Given a record from the moment between the manifest and the job's end, and a machine that was cleaned since
    world.store.jobs.change("abc", status=Status.UPLOADING, final_status=Status.DONE, exit_code=0)
    definition = replace(world.job.definition, artifacts=("out",))
    world.store.jobs.change("abc", definition=definition)
    world.machine.listing = lambda command: "gone=yes\n"  # type: ignore[method-assign]

    ends(world, "done")

    assert (world.job.status, world.job.exit_code) == (Status.DONE, 0)
