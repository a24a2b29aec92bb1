"""Sends a runner the objects of a run's code that it lacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import DstackError, HostError
from dstack.model.job.execution import Launched, Received

CHUNK = 256 * 1024
RIDES = 64 * 1024
"""A pack of at most this many bytes is sent with the launch itself; a larger one is sent first."""
Tell = Callable[[int, int], None]
"""Gets the bytes sent so far and the total."""

log = logging.getLogger("dstack.engine")


async def launch_with_code(
    job_on_runner: JobOnRunner, launch: Callable[[bytes], Awaitable[Launched]], tell: Tell
) -> Launched:
    """Launch if the runner has the code, or send a small pack with the launch. Packs are sent one at a time per runner
    and repository, because jobs of one snapshot share a pack."""
    snapshot, runner = job_on_runner.snapshot, job_on_runner.runner.name
    shipped = job_on_runner.store.known_objects
    async with job_on_runner.context.shipping[runner, snapshot.repo]:
        known = shipped.of(runner, snapshot.repo)
        if not set(snapshot.names) <= set(known):
            async with written(job_on_runner.mirror.pack(snapshot, known)) as pack:
                if pack.stat().st_size <= RIDES:
                    launched = await launch(pack.read_bytes())
                    if launched.received:
                        shipped.add(runner, snapshot.repo, snapshot.names)
                    return launched
                await deliver(job_on_runner, pack, tell)
    return await launch(b"")


async def ship(job_on_runner: JobOnRunner, known: Iterable[str], tell: Tell) -> None:
    """Send the snapshot to a runner that reported that it lacks it and has only the `known` objects."""
    snapshot, runner = job_on_runner.snapshot, job_on_runner.runner.name
    async with job_on_runner.context.shipping[runner, snapshot.repo]:
        job_on_runner.store.known_objects.forget(runner, snapshot.repo)
        async with written(job_on_runner.mirror.pack(snapshot, known)) as pack:
            await deliver(job_on_runner, pack, tell)


def keep_spare(job_on_runner: JobOnRunner) -> None:
    """Have the runner write the tree once more while the job runs, so that the next job starts sooner."""
    runner, spares = job_on_runner.runner.name, job_on_runner.context.spares
    executor, snapshot = job_on_runner.executor, job_on_runner.snapshot

    async def make() -> None:
        try:
            await executor.spare(snapshot)
        except DstackError as trouble:
            log.info("%s: no spare tree was written: %s", runner, trouble.message)

    task = asyncio.create_task(make())
    spares.add(task)
    task.add_done_callback(spares.discard)


async def deliver(job_on_runner: JobOnRunner, pack: Path, tell: Tell) -> None:
    """Send the pack; if the runner lacks its base, send all of the snapshot."""
    snapshot, runner, mirror = job_on_runner.snapshot, job_on_runner.runner.name, job_on_runner.mirror
    shipped = job_on_runner.store.known_objects
    answer = await send(job_on_runner, pack, tell)
    if answer is Received.NEED_FULL:
        shipped.forget(runner, snapshot.repo)
        async with written(mirror.pack(snapshot)) as everything:
            answer = await send(job_on_runner, everything, tell)
    if answer is Received.NEED_FULL:
        damage = await asyncio.to_thread(mirror.damage)
        if damage:
            raise damage
        hint = f"dstack runners check {runner}"
        raise HostError(f"{runner} could not unpack the code, although all of it was sent", hint=hint)
    shipped.add(runner, snapshot.repo, snapshot.names)


async def send(job_on_runner: JobOnRunner, pack: Path, tell: Tell) -> Received:
    """Send one pack, in one round trip."""
    given = counted(lambda: contents(pack), pack.stat().st_size, tell)
    return await job_on_runner.executor.receive(job_on_runner.snapshot, given)


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
    """A file's bytes in chunks."""
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK):
            yield data
