"""The phases of a job, and the progress of what is sent to its runner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dstack.commands.command import Command
from dstack.engine.lifecycle.upload_status import ShippingProgress
from dstack.engine.transfer.push_code import counted
from dstack.hosts.recording import Reply
from dstack.model.job.status import Phase, Progress, Status
from tests.unit.engine.lifecycle.machine import Machine, World


class Pulling(Machine):
    """Lacks the image."""

    def __init__(self) -> None:
        super().__init__()
        self.pulled = False

    def reply(self, command: Command[Any]) -> Reply:
        if command.name == "launching the job" and not self.pulled:
            return "need=image\n"
        if command.name == "pulling busybox":
            self.pulled = True
            return ""
        return super().reply(command)


def phases(world: World) -> list[Phase]:
    """Drive the job to its end, and return the phases that it goes through."""
    seen = [world.job.phase]
    real = world.store.jobs.change

    def change(job: str, **changes: Any) -> Any:
        changed = real(job, **changes)
        if changed.phase is not seen[-1]:
            seen.append(changed.phase)
        return changed

    world.store.jobs.change = change  # type: ignore[method-assign]
    asyncio.run(asyncio.wait_for(world.drive().run(), 20))
    return seen


def test_a_job_whose_image_is_pulled_goes_through_every_phase(tmp_path: Path) -> None:
    world = World(tmp_path, Pulling())

    seen = phases(world)

    assert seen == [phase for phase in Phase if phase is not Phase.QUEUED]
    assert world.job.progress is None


def test_a_job_whose_runner_has_everything_starts_at_once(tmp_path: Path) -> None:
    assert phases(World(tmp_path, Machine())) == [Phase.SHIPPING, Phase.RUNNING, Phase.UPLOADING, Phase.ENDED]


def test_a_queued_job_has_the_phase_of_its_status(tmp_path: Path) -> None:
    world = World(tmp_path, Machine())
    world.store.jobs.change("abc", preparation=Phase.STARTING)

    assert world.store.jobs.change("abc", status=Status.QUEUED).phase is Phase.QUEUED


def test_a_long_transfer_says_now_and_then_how_far_it_is(tmp_path: Path) -> None:
    clock = iter([0.0, 1.0, 2.0])
    world = World(tmp_path, Machine())
    tell = ShippingProgress(world.drive(), lambda: next(clock))

    async def data() -> AsyncIterator[bytes]:
        yield b"1234"
        assert world.job.progress is None
        yield b"56789"

    async def sent() -> bytes:
        return b"".join([data async for data in counted(data, 8, tell)()])

    assert asyncio.run(sent()) == b"123456789"
    assert world.job.progress == Progress(8, 8)
