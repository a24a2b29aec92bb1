"""Sends a runner the objects of a run's code that it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import DstackError, HostError
from dstack.model.job.execution import Launched, Received

CHUNK = 256 * 1024
RIDES = 64 * 1024
"""A pack of at most this many bytes is sent with the launch itself; a larger one is sent first."""
Tell = Callable[[int, int], None]
"""Gets the bytes sent so far and the total."""


class CodePush:
    """Sends one job's code: one pack at a time per runner and repository, as jobs of one snapshot share a pack."""

    def __init__(self, job_on_runner: JobOnRunner, tell: Tell) -> None:
        self.snapshot, context = job_on_runner.snapshot, job_on_runner.context
        self.mirror = context.mirror(self.snapshot.repo)
        self.runner, self.executor = job_on_runner.runner.name, job_on_runner.executor
        self.objects = job_on_runner.store.known_objects
        self.turn = context.locks["code", self.runner, self.snapshot.repo]
        self.tell = tell

    async def launch(self, launch: Callable[[bytes], Awaitable[Launched]]) -> Launched:
        """Launch once the runner has the code. If it reports that it lacks the code, send it and launch again."""
        launched = await self.with_pack(launch)
        if launched.outcome != "need-code":
            return launched
        async with self.turn:
            self.objects.forget(self.runner, self.snapshot.repo)
            async with written(
                self.mirror.pack(self.snapshot, (*launched.histories, *launched.commits, *launched.trees))
            ) as pack:
                await self.deliver(pack)
        return await launch(b"")

    async def with_pack(self, launch: Callable[[bytes], Awaitable[Launched]]) -> Launched:
        """Launch, and send what the runner is known to lack: a small pack with the launch, a large one before."""
        async with self.turn:
            known = self.objects.of(self.runner, self.snapshot.repo)
            if not set(self.snapshot.names) <= set(known):
                async with written(self.mirror.pack(self.snapshot, known)) as pack:
                    if pack.stat().st_size <= RIDES:
                        launched = await launch(pack.read_bytes())
                        if launched.received:
                            self.objects.add(self.runner, self.snapshot.repo, self.snapshot.names)
                        return launched
                    await self.deliver(pack)
        return await launch(b"")

    async def deliver(self, pack: Path) -> None:
        """Send the pack; if the runner lacks its base, send all of the snapshot."""
        answer = await self.send(pack)
        if answer is Received.NEED_FULL:
            self.objects.forget(self.runner, self.snapshot.repo)
            async with written(self.mirror.pack(self.snapshot)) as everything:
                answer = await self.send(everything)
        if answer is Received.NEED_FULL:
            damage = await asyncio.to_thread(self.mirror.damage)
            if damage:
                raise damage
            hint = f"dstack runners check {self.runner}"
            raise HostError(f"{self.runner} could not unpack the code, although all of it was sent", hint=hint)
        self.objects.add(self.runner, self.snapshot.repo, self.snapshot.names)

    async def send(self, pack: Path) -> Received:
        """Send one pack, in one round trip."""
        given = counted(lambda: contents(pack), pack.stat().st_size, self.tell)
        return await self.executor.receive(self.snapshot, given)


async def write_spare(job_on_runner: JobOnRunner) -> None:
    """Have the runner write the tree once more while the job runs, so that the next job starts sooner."""
    runner = job_on_runner.runner.name
    try:
        await job_on_runner.executor.spare(job_on_runner.snapshot)
    except DstackError as trouble:
        log.info("%s: no spare tree was written: %s", runner, trouble.message)


def counted(stream: Callable[[], AsyncIterator[bytes]], total: int, tell: Tell) -> Callable[[], AsyncIterator[bytes]]:
    """Pass a stream of about `total` bytes on, and report how much of it was taken."""

    async def passed() -> AsyncIterator[bytes]:
        sent = 0
        async for data in stream():
            yield data
            sent += len(data)
            tell(min(sent, total), total)

    return passed


@asynccontextmanager
async def written(pack: AbstractContextManager[Path]) -> AsyncIterator[Path]:
    """The file of a pack; a thread writes it."""
    path = await asyncio.to_thread(pack.__enter__)
    try:
        yield path
    finally:
        pack.__exit__(None, None, None)


async def contents(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK):
            yield data
