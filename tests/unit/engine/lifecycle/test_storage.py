"""A storage that does not answer makes jobs wait, and fails none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.artifacts.folder.store import FolderStore
from dstack.engine import artifact_storage
from dstack.engine.lifecycle import drive, watch
from dstack.errors import StorageUnavailableError
from dstack.model.job.job import Origin
from dstack.model.job.manifest import Manifest
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from dstack.model.project.workflow import Artifact, Workflow
from tests.unit.engine.lifecycle.machine import Machine, World

DOWN = "S3 does not answer: Could not connect to the endpoint URL"


class Storage:
    """Fails for as long as it is `down`, and counts how often it was asked."""

    def __init__(self) -> None:
        self.down = True
        self.asked = 0

    def answer(self) -> None:
        self.asked += 1
        if self.down:
            raise StorageUnavailableError(DOWN)


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Storage:
    """A storage that is down, for everybody who asks it."""
    storage, manifest, remove = Storage(), FolderStore.manifest, FolderStore.remove

    async def reach(self: FolderStore, folder: Any) -> None:
        storage.answer()

    def asked(self: FolderStore, run: str, workflow: str) -> Manifest | None:
        storage.answer()
        return manifest(self, run, workflow)

    async def removed(self: FolderStore, run: str, workflow: str) -> None:
        storage.answer()
        await remove(self, run, workflow)

    monkeypatch.setattr(FolderStore, "reach", reach)
    monkeypatch.setattr(FolderStore, "manifest", asked)
    monkeypatch.setattr(FolderStore, "remove", removed)
    monkeypatch.setattr(drive, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(watch, "LOOK_AGAIN", 0.0)
    return storage


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A job that makes an artifact, placed on its runner."""
    world = World(tmp_path, Machine())
    definition = Workflow(name="job", image="busybox", commands=("true",), artifacts=(Artifact(path="out"),))
    world.store.jobs.change("abc", definition=definition)
    yield world
    world.store.close()


async def waits(world: World, storage: Storage) -> asyncio.Task[None]:
    """Drive the job until it has asked the storage several times."""
    driving = asyncio.create_task(world.drive().run())
    while storage.asked < 4 and not driving.done():
        await asyncio.sleep(0.01)
    assert not driving.done(), world.job
    return driving


def test_a_launch_waits_and_says_since_when(world: World, storage: Storage) -> None:
    async def scene() -> None:
        # Given a job whose runner can't reach the storage
        driving = await waits(world, storage)
        first = world.job.reason
        assert first is not None
        assert first.code is ReasonCode.STORAGE_UNAVAILABLE
        assert first.text.startswith("the storage has been unavailable since 20")
        assert first.text.endswith(f"; the job starts once it is back: {DOWN}")
        asked = storage.asked
        while storage.asked < asked + 3:
            await asyncio.sleep(0.01)
        assert world.job.reason == first, "the moment stays the same"
        assert world.machine.begun == 0

        # When it is back, then the job runs
        storage.down = False
        while world.job.status is Status.PREPARING:
            await asyncio.sleep(0.01)
        assert world.machine.begun == 1
        driving.cancel()

    asyncio.run(scene())


@pytest.mark.parametrize("wish", ["stop", "abort"])
def test_one_that_waits_can_be_stopped(world: World, storage: Storage, wish: str) -> None:
    async def scene() -> None:
        (await waits(world, storage)).cancel()
        world.store.jobs.change("abc", stop=wish)
        await asyncio.wait_for(world.drive().run(), 20)

    asyncio.run(scene())

    assert (world.job.status, world.machine.begun) == (Status.STOPPED, 0)


def test_what_waits_for_its_dependencies_artifacts_waits_too(world: World, storage: Storage) -> None:
    made = world.job
    world.store.jobs.remove("abc")
    world.store.jobs.add(replace(made, id="def", workflow="data", status=Status.DONE))
    world.store.jobs.add(replace(made, dependencies={"data": "def"}, definition=plain()))

    async def scene() -> None:
        driving = await waits(world, storage)
        assert world.job.reason is not None
        assert world.job.reason.code is ReasonCode.STORAGE_UNAVAILABLE

        # A storage that answers that it has nothing is another matter
        storage.down = False
        await asyncio.wait_for(driving, 20)

    asyncio.run(scene())

    assert (world.job.status, world.job.reason_code) == (Status.FAILED, ReasonCode.ARTIFACT_MISSING)


def test_a_job_whose_folder_is_gone_is_not_lost_before_the_storage_was_asked(world: World, storage: Storage) -> None:
    world.store.jobs.change("abc", status=Status.RUNNING, launching=True, launch=Origin("b1", "7:100"))
    world.machine.claim = "gone"

    async def scene() -> None:
        driving = await waits(world, storage)
        assert world.job.status is Status.RUNNING
        assert world.job.reason is not None
        assert "; only it knows how the job ended: " in world.job.reason.text

        storage.down = False
        while world.job.status is Status.RUNNING:
            await asyncio.sleep(0.01)
        driving.cancel()

    asyncio.run(scene())

    assert world.job.final_status is Status.LOST


def test_an_aborted_upload_ends_without_the_storage(world: World, storage: Storage) -> None:
    world.store.jobs.change("abc", status=Status.RUNNING)
    world.store.jobs.change("abc", status=Status.UPLOADING, final_status=Status.DONE, exit_code=0, stop="abort")

    asyncio.run(asyncio.wait_for(world.drive().run(), 20))

    assert (world.job.status, world.job.reason_code) == (Status.STOPPED, ReasonCode.ABORTED)
    assert "the storage is not available" in (world.job.reason.text if world.job.reason else "")


def test_a_storage_that_hangs_is_asked_by_one_thread_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 may take minutes to give up."""
    monkeypatch.setattr(artifact_storage, "ANSWERS", 0.05)
    goes_on, asked = threading.Event(), 0

    def hang(self: FolderStore, run: str, workflow: str) -> None:
        nonlocal asked
        asked += 1
        goes_on.wait(30)

    monkeypatch.setattr(FolderStore, "manifest", hang)

    async def scene() -> None:
        for _ in range(3):
            with pytest.raises(StorageUnavailableError, match="has not answered for"):
                await world.context.artifacts.left(world.job)
        goes_on.set()
        assert await world.context.artifacts.left(world.job) is None

    asyncio.run(scene())

    assert asked == 1


def test_a_submission_does_not_wait_for_the_storage(world: World, storage: Storage) -> None:
    """What is to be reused is read again before anything uses it."""
    assert asyncio.run(world.context.artifacts.damage(world.job)) is None
    storage.down = False
    assert "no longer stored" in (asyncio.run(world.context.artifacts.damage(world.job)) or "")


def plain() -> Workflow:
    return Workflow(name="job", image="busybox", commands=("true",))
