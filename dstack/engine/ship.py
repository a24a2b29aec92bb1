"""Sends a runner the objects of a run's code that it lacks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from dstack.commands.code import Received, receive, spare
from dstack.commands.command import Command
from dstack.commands.launch import Launched
from dstack.engine.context import Context
from dstack.errors import DstackError, HostError
from dstack.hosts.host import ask
from dstack.model.runner import Runner
from dstack.model.snapshot import Snapshot

CHUNK = 256 * 1024


RIDES = 64 * 1024
"""Bytes of a pack that goes with the launch itself: more are sent beforehand."""


SPARE = 300.0
"""Seconds for one more tree."""

log = logging.getLogger("dstack.engine")


async def launch_with_code(
    context: Context, snapshot: Snapshot, runner: Runner, launch: Callable[[bytes], Command[Launched]]
) -> Launched:
    """Launch where the host has the code, or gets it with the launch if there is little to send. One pack at a time for
    a runner and repository: jobs of one snapshot share it."""
    shipped, host = context.store.shipped, context.machines.host(runner)
    async with context.shipping[runner.name, snapshot.repo]:
        known = shipped.of(runner.name, snapshot.repo)
        if not set(snapshot.names) <= set(known):
            async with written(context.mirror(snapshot.repo).pack(snapshot, known)) as pack:
                if pack.stat().st_size <= RIDES:
                    launched = await ask(host, launch(pack.read_bytes()))
                    if launched.received:
                        shipped.add(runner.name, snapshot.repo, snapshot.names)
                    return launched
                await deliver(context, runner, snapshot, pack)
    return await ask(host, launch(b""))


async def ship(context: Context, snapshot: Snapshot, runner: Runner, known: Iterable[str]) -> None:
    """Bring the snapshot to a runner that said that it lacks it, and that these are there."""
    async with context.shipping[runner.name, snapshot.repo]:
        context.store.shipped.forget(runner.name, snapshot.repo)
        async with written(context.mirror(snapshot.repo).pack(snapshot, known)) as pack:
            await deliver(context, runner, snapshot, pack)


def keep_spare(context: Context, runner: Runner, snapshot: Snapshot) -> None:
    """Have the runner write the tree once more, while the job is running: the next one begins sooner."""

    async def make() -> None:
        try:
            await ask(context.machines.host(runner), spare(context.machines.place(runner), snapshot), timeout=SPARE)
        except DstackError as trouble:
            log.info("%s: no tree is kept ready: %s", runner.name, trouble.message)

    task = asyncio.create_task(make())
    context.spares.add(task)
    task.add_done_callback(context.spares.discard)


async def deliver(context: Context, runner: Runner, snapshot: Snapshot, pack: Path) -> None:
    """Send the pack, and all of the snapshot if that is not enough."""
    shipped = context.store.shipped
    answer = await send(context, runner, snapshot, pack)
    if answer is Received.NEED_FULL:
        shipped.forget(runner.name, snapshot.repo)
        async with written(context.mirror(snapshot.repo).pack(snapshot)) as everything:
            answer = await send(context, runner, snapshot, everything)
    if answer is Received.NEED_FULL:
        damage = await asyncio.to_thread(context.mirror(snapshot.repo).damage)
        if damage:
            raise damage
        hint = f"dstack runners check {runner.name}"
        raise HostError(f"{runner.name} could not take in the code, though all of it was sent", hint=hint)
    shipped.add(runner.name, snapshot.repo, snapshot.names)


async def send(context: Context, runner: Runner, snapshot: Snapshot, pack: Path) -> Received:
    """One pack, one round trip."""
    command = receive(context.machines.place(runner), snapshot, lambda: contents(pack))
    return await ask(context.machines.host(runner), command)


@asynccontextmanager
async def written(pack: AbstractContextManager[Path]) -> AsyncIterator[Path]:
    """The file of a pack, which a thread writes."""
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
