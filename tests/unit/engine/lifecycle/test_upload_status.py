"""A job that is stopped while its artifacts are being stored."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dstack.artifacts.folder.store import FolderStore
from dstack.commands.artifacts.collect import ArtifactListing
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle import drive
from dstack.engine.lifecycle.upload_status import UploadProgress, stopped, stopping
from dstack.engine.transfer.collect import Collector
from dstack.errors import CommandError, HostUnreachableError
from dstack.model.job.job import Job
from dstack.model.job.manifest import File
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Progress, Status
from dstack.model.project.workflow import Artifact, Workflow
from dstack.model.text.units import rfc3339
from tests.unit.engine.lifecycle.machine import Machine, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A job that has ended by itself, on a machine that is gone."""
    monkeypatch.setattr(drive, "LONGEST_PAUSE", 0.0)

    def silence(when: str) -> None:
        raise HostUnreachableError("it is gone")

    made = World(tmp_path, Machine(trouble=silence))
    definition = Workflow(name="job", image="busybox", commands=("true",), artifacts=(Artifact(path="out"),))
    ended = {"final_status": Status.DONE, "exit_code": 0, "definition": definition}
    made.store.jobs.change("abc", status=Status.RUNNING)
    made.store.jobs.change("abc", status=Status.UPLOADING, **ended)
    return made


def text(job: Job) -> str:
    return job.reason.text if job.reason else ""


def file(path: str, content: bytes) -> File:
    return File(path, len(content), 0o644, hashlib.sha256(content).hexdigest())


async def stream(content: bytes) -> AsyncIterator[bytes]:
    yield content


def test_a_machine_that_is_gone_blocks_no_stop_for_ever(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drive, "SILENCE", 0.0)
    since = rfc3339(time.time())
    world.store.jobs.change("abc", stop="stop", unreachable_since=since)

    asyncio.run(world.drive().run())

    assert (world.job.status, world.job.exit_code, world.job.files) == (Status.STOPPED, 143, 0)
    assert text(world.job) == (
        f"stopped by dstack stop; runner 'box' has not answered since {since}, "
        "so artifacts that were not stored by then are lost"
    )


@pytest.mark.parametrize("wish", [None, "stop"])
def test_one_that_is_silent_for_a_while_is_waited_for(world: World, wish: str | None) -> None:
    """Also if the clock jumps meanwhile."""
    since = rfc3339(time.time() - drive.SILENCE - 1)
    world.store.jobs.change("abc", stop=wish, unreachable_since=since)

    async def tried() -> None:
        driving = asyncio.create_task(world.drive().run())
        while "it is gone" not in text(world.job):
            await asyncio.sleep(0)
        driving.cancel()

    asyncio.run(tried())

    assert world.job.status is Status.UPLOADING
    assert ("dstack stop --abort run" in text(world.job)) == bool(wish)


@pytest.mark.parametrize("wish", [None, "stop"])
def test_a_full_disk_is_told_and_keeps_nobody_from_stopping(world: World, wish: str | None) -> None:
    def full(when: str) -> None:
        raise CommandError("listing the artifacts", 1, "mv: cannot move 'a' to 'b': No space left on device")

    world.machine.trouble = full
    world.store.jobs.change("abc", stop=wish)

    async def tried() -> None:
        driving = asyncio.create_task(world.drive().run())
        while "full" not in text(world.job):
            await asyncio.sleep(0)
        driving.cancel()

    asyncio.run(tried())

    if wish:
        assert (world.job.status, world.job.exit_code) == (Status.STOPPED, 143)
        assert "the disk of box is full, so artifacts that were not stored by then are lost" in text(world.job)
    else:
        assert world.job.reason_code is ReasonCode.DISK_FULL
        assert text(world.job).endswith("dstack runners check box; to end it anyway: dstack stop --abort run")


def test_a_docker_that_does_not_answer_is_told_as_such(world: World) -> None:
    def stopped(when: str) -> None:
        raise CommandError(
            "listing the artifacts", 1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock"
        )

    world.machine.trouble = stopped

    async def tried() -> None:
        driving = asyncio.create_task(world.drive().run())
        while "Docker on box has not answered since " not in text(world.job):
            await asyncio.sleep(0)
        driving.cancel()

    asyncio.run(asyncio.wait_for(tried(), 20))

    assert world.job.reason_code is ReasonCode.RUNNER_UNREACHABLE


def test_what_has_arrived_from_it_is_kept_as_of_a_stopped_job(world: World) -> None:
    storage = world.context.artifacts.current
    assert isinstance(storage, FolderStore)
    came, lost, link = file("out/a", b"one"), file("out/b", b"two"), File("out/c", 0, 0o777, "", "a")
    collector = Collector(JobOnRunner(world.context, "abc"), lambda stored, total, trouble: None)
    collector.found = ArtifactListing((came, lost, link), (), ())

    async def kept() -> int:
        await storage.receive("run", "job", stream(b"one"), [came])
        return (await collector.salvage(Status.STOPPED)).files

    assert asyncio.run(kept()) == 2
    manifest = storage.manifest("run", "job")
    assert manifest is not None
    assert (manifest.status, manifest.files) == ("stopped", (came, link))


def test_what_keeps_an_upload_from_going_on_is_told_with_since_when_and_goes(world: World) -> None:
    clock = iter([0.0, 3.0, 6.0, 9.0])
    tell = UploadProgress(world.drive(), lambda: next(clock))
    refused = "S3 refuses the upload from box with status 503 (Service Unavailable)"

    tell(0, 5000, refused)
    first = text(world.job)
    tell(0, 5000, refused)

    assert first == text(world.job) == f"0 B of 5 kB are stored; since {tell.failing_since}: {refused}"
    assert world.job.reason_code is ReasonCode.STORAGE_UNAVAILABLE
    tell(1000, 5000)
    assert world.job.reason_code is ReasonCode.UPLOADING


def test_it_says_how_far_it_is_now_and_then(world: World) -> None:
    clock = iter([0.0, 1.0, 2.0, 3.0, 5.0])
    job_on_runner = world.drive()
    tell = UploadProgress(job_on_runner, lambda: next(clock))

    tell(10, 5000)
    assert world.job.reason is None
    tell(1000, 5000)
    assert text(world.job) == "1 kB of 5 kB are stored"
    assert world.job.progress == Progress(1000, 5000)
    tell(1500, 5000)
    assert text(world.job) == "1 kB of 5 kB are stored"
    world.store.jobs.change("abc", stop="stop", reason=stopping(world.job))
    assert text(world.job) == "stopping: its artifacts are being stored; to discard them: dstack stop --abort run"
    assert world.job.reason_code is ReasonCode.STOPPING
    tell(2000, 5000)
    assert text(world.job) == "stopping: 2 kB of 5 kB are stored; to discard them: dstack stop --abort run"


@pytest.mark.parametrize(
    ("end", "code", "ending", "said"),
    [
        (Status.DONE, 0, None, "its commands had ended"),
        (Status.FAILED, 3, None, "its commands had ended with exit code 3"),
        (Status.FAILED, 137, "out of memory", "its commands had ended with exit code 137: out of memory"),
        (Status.LOST, 125, "the runner restarted", "it was lost before: the runner restarted"),
    ],
)
def test_how_it_had_ended_is_told(world: World, end: Status, code: int, ending: str | None, said: str) -> None:
    job = world.store.jobs.change(
        "abc", final_status=end, exit_code=code, final_reason=Reason(None, ending) if ending else None
    )

    assert stopped(job).text == f"stopped by dstack stop while its artifacts were being stored; {said}"
