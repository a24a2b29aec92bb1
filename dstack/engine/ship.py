"""Sends a runner the objects of a run's code that it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path

from dstack.commands.code import Received, receive
from dstack.engine.context import Context
from dstack.errors import HostError
from dstack.hosts.host import ask
from dstack.model.runner import Runner
from dstack.model.snapshot import Snapshot

CHUNK = 256 * 1024


async def ship(context: Context, snapshot: Snapshot, runner: Runner, *, again: bool = False) -> None:
    """Bring the snapshot to the runner unless it is known to be there. `again`: it is not there after all, or it is
    damaged. One pack at a time for a runner and repository: jobs of one snapshot share it."""
    shipped = context.store.shipped
    async with context.shipping[runner.name, snapshot.repo]:
        if again:
            shipped.forget(runner.name, snapshot.repo)
        known = shipped.of(runner.name, snapshot.repo)
        if set(snapshot.objects) <= set(known):
            return
        answer = await send(context, runner, snapshot, known)
        if answer is Received.NEED_FULL:
            shipped.forget(runner.name, snapshot.repo)
            answer = await send(context, runner, snapshot, ())
        if answer is Received.NEED_FULL:
            hint = f"dstack runners check {runner.name}"
            raise HostError(f"{runner.name} could not take in the code, though all of it was sent", hint=hint)
        shipped.add(runner.name, snapshot.repo, snapshot.objects)


async def send(context: Context, runner: Runner, snapshot: Snapshot, known: Iterable[str]) -> Received:
    """One pack, one round trip."""
    async with written(context.mirror(snapshot.repo).pack(snapshot, known)) as pack:
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
