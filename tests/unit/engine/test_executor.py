"""The engine drives jobs on any executor: here, one without Docker and without a host."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.engine.engine import Engine
from dstack.engine.fleet.condition import Condition
from dstack.engine.lifecycle import watch
from dstack.engine.lifecycle.drive import Drive
from dstack.errors import StateBusyError
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.project.workflow import Artifact
from tests.unit.engine.lifecycle.machine import Machine, World
from tests.unit.executors.fake import LOG, ORIGIN, FakeExecutor


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A server with one queued job and one ready runner."""
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.0)
    made = World(tmp_path, Machine())
    queued = replace(made.job, status=Status.QUEUED, runner=None)
    made.store.jobs.remove("abc")
    made.store.jobs.add(queued)
    made.context.fleet.conditions["box"] = Condition("ready")
    yield made
    made.store.close()


def ended(world: World, executor: FakeExecutor) -> Job:
    """Drive the job to its end and clean up its runner; return the job."""
    world.context.executors["docker"] = executor

    async def lived() -> None:
        engine = Engine(world.context)
        engine.scheduler.run()
        await engine.drives["abc"]
        engine.clean()
        await asyncio.gather(*engine.cleaning.values())
        await engine.close()

    asyncio.run(asyncio.wait_for(lived(), 20))
    assert world.machine.host.commands == [], "the host was asked past the executor"
    return world.job


def test_a_job_is_driven_from_the_queue_to_its_end(world: World) -> None:
    executor = FakeExecutor()
    executor.lacks_image = True

    job = ended(world, executor)

    assert (job.status, job.exit_code, job.launch, job.image_digest) == (Status.DONE, 0, ORIGIN, "digest")
    assert (world.log, executor.begun) == (LOG, 1)
    assert (job.discarded, executor.attempts, executor.retained) == (True, {}, set())


def test_its_artifacts_are_stored_and_retained_for_the_jobs_that_depend_on_it(world: World) -> None:
    executor = FakeExecutor()
    executor.made["out/latest"] = "step-1"
    world.store.jobs.change("abc", definition=replace(world.job.definition, artifacts=(Artifact(path="out"),)))

    job = ended(world, executor)

    assert (job.status, job.files) == (Status.DONE, 1)
    assert executor.retained == {"abc"}
    assert world.store.retained_artifacts.get("abc") is not None


def test_a_runner_at_fault_gets_no_more_jobs_that_need_its_gpus(world: World) -> None:
    executor = FakeExecutor()
    executor.broken = True

    job = ended(world, executor)

    broken = Reason(ReasonCode.GPU_DRIVER, "the GPUs can't be used")
    assert (job.status, job.exit_code, job.reason) == (Status.FAILED, 125, broken)
    (machine,) = world.context.fleet.now()
    assert machine.gpu_trouble is not None
    assert machine.gpu_trouble.text == "the driver fails; reboot"


def test_a_job_that_nobody_drives_is_found(world: World) -> None:
    world.context.executors["docker"] = FakeExecutor()
    world.store.jobs.change("abc", status=Status.PREPARING, runner="box")

    async def lived() -> None:
        engine = Engine(world.context)
        engine.drives["abc"] = asyncio.ensure_future(asyncio.sleep(0))
        await engine.drives["abc"]
        engine.resume()
        await engine.drives["abc"]
        await engine.close()

    asyncio.run(asyncio.wait_for(lived(), 20))
    assert world.job.status is Status.DONE


@pytest.mark.parametrize(
    "trouble", [StateBusyError("locked"), OSError(errno.ENOSPC, "full"), OSError(errno.EMFILE, "x"), MemoryError()]
)
@pytest.mark.parametrize("status", [Status.PREPARING, Status.RUNNING, Status.UPLOADING])
def test_trouble_of_the_server_ends_no_job(world: World, trouble: Exception, status: Status) -> None:
    executor, again = FakeExecutor(), [trouble] * 2
    world.context.executors["docker"] = executor
    step = Drive.step

    async def failing(drive: Drive, job: Job) -> None:
        if job.status is status and again:
            raise again.pop()
        await step(drive, job)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Drive, "step", failing)
        job = ended(world, executor)

    assert (job.status, world.log, executor.begun, again) == (Status.DONE, LOG, 1, [])
