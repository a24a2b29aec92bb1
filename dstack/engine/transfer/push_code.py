"""Sends a runner the objects of a run's code that it lacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from dstack.commands.command import Command
from dstack.commands.job.launch import Launched
from dstack.commands.job.receive_code import Received, receive, spare
from dstack.engine.context import Context
from dstack.errors import DstackError, HostError
from dstack.hosts.host import ask
from dstack.model.code.snapshot import Snapshot
from dstack.model.runner.runner import Runner

CHUNK = 256 * 1024
RIDES = 64 * 1024
"""A pack of at most this many bytes is sent with the launch itself; a larger one is sent first."""
Tell = Callable[[int, int], None]
SPARE = 300.0
"""Seconds for writing a spare tree."""

log = logging.getLogger("dstack.engine")


def ignore(sent: int, total: int) -> None:
    """Report nothing."""


async def launch_with_code(
    context: Context,
    snapshot: Snapshot,
    runner: Runner,
    launch: Callable[[bytes], Command[Launched]],
    tell: Tell = ignore,
) -> Launched:
    """Launch if the runner has the code, or send a small pack with the launch. Packs are sent one at a time per runner
    and repository, because jobs of one snapshot share a pack. `tell` is called with the bytes sent and the total."""
    shipped, host = context.store.known_objects, context.fleet.host(runner)
    async with context.shipping[runner.name, snapshot.repo]:
        known = shipped.of(runner.name, snapshot.repo)
        if not set(snapshot.names) <= set(known):
            async with written(context.mirror(snapshot.repo).pack(snapshot, known)) as pack:
                if pack.stat().st_size <= RIDES:
                    launched = await ask(host, launch(pack.read_bytes()))
                    if launched.received:
                        shipped.add(runner.name, snapshot.repo, snapshot.names)
                    return launched
                await deliver(context, runner, snapshot, pack, tell)
    return await ask(host, launch(b""))


async def ship(context: Context, snapshot: Snapshot, runner: Runner, known: Iterable[str], tell: Tell = ignore) -> None:
    """Send the snapshot to a runner that reported that it lacks it and has only the `known` objects."""
    async with context.shipping[runner.name, snapshot.repo]:
        context.store.known_objects.forget(runner.name, snapshot.repo)
        async with written(context.mirror(snapshot.repo).pack(snapshot, known)) as pack:
            await deliver(context, runner, snapshot, pack, tell)


def keep_spare(context: Context, runner: Runner, snapshot: Snapshot) -> None:
    """Have the runner write the tree once more while the job runs, so that the next job starts sooner."""

    async def make() -> None:
        try:
            await ask(context.fleet.host(runner), spare(context.fleet.host_context(runner), snapshot), timeout=SPARE)
        except DstackError as trouble:
            log.info("%s: no spare tree was written: %s", runner.name, trouble.message)

    task = asyncio.create_task(make())
    context.spares.add(task)
    task.add_done_callback(context.spares.discard)


async def deliver(context: Context, runner: Runner, snapshot: Snapshot, pack: Path, tell: Tell) -> None:
    """Send the pack; if the runner lacks its base, send all of the snapshot."""
    shipped = context.store.known_objects
    answer = await send(context, runner, snapshot, pack, tell)
    if answer is Received.NEED_FULL:
        shipped.forget(runner.name, snapshot.repo)
        async with written(context.mirror(snapshot.repo).pack(snapshot)) as everything:
            answer = await send(context, runner, snapshot, everything, tell)
    if answer is Received.NEED_FULL:
        damage = await asyncio.to_thread(context.mirror(snapshot.repo).damage)
        if damage:
            raise damage
        hint = f"dstack runners check {runner.name}"
        raise HostError(f"{runner.name} could not unpack the code, although all of it was sent", hint=hint)
    shipped.add(runner.name, snapshot.repo, snapshot.names)


async def send(context: Context, runner: Runner, snapshot: Snapshot, pack: Path, tell: Tell) -> Received:
    """Send one pack, in one round trip."""
    given = counted(lambda: contents(pack), pack.stat().st_size, tell)
    command = receive(context.fleet.host_context(runner), snapshot, given)
    return await ask(context.fleet.host(runner), command)


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
