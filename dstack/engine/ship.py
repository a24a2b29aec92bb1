"""Sends a runner the objects of a run's code that it lacks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from dstack.commands.code import Received, receive
from dstack.engine.context import Context
from dstack.errors import HostError
from dstack.hosts.host import ask
from dstack.model.job import Job
from dstack.model.runner import Runner
from dstack.model.snapshot import Snapshot

CHUNK = 256 * 1024


async def ship(context: Context, job: Job, runner: Runner, *, everything: bool) -> None:
    """Send a pack against what the runner is known to hold; all of it with `everything`, or where that knowledge
    turns out to be wrong."""
    snapshot = context.store.runs.require(job.run).snapshot
    async with context.shipping[runner.name, snapshot.repo]:
        known = context.store.shipped.of(runner.name, snapshot.repo)
        if everything and snapshot.tree not in known:
            known = []
        answer = await send(context, runner, snapshot, known)
        if answer is Received.NEED_FULL:
            context.store.shipped.forget(runner.name, snapshot.repo)
            answer = await send(context, runner, snapshot, [])
        if answer is Received.NEED_FULL:
            raise HostError(
                f"{runner.name} refused the code of {snapshot.repo}", hint=f"dstack runners check {runner.name}"
            )
        objects = [name for name in (snapshot.commit, snapshot.tree) if name]
        context.store.shipped.add(runner.name, snapshot.repo, objects)


async def send(context: Context, runner: Runner, snapshot: Snapshot, known: list[str]) -> Received:
    """One pack, one round trip."""
    mirror = context.mirror(snapshot.repo)
    pack = await asyncio.to_thread(mirror.pack, snapshot, known)
    try:
        command = receive(context.machines.place(runner), snapshot, lambda: contents(pack))
        return await ask(context.machines.host(runner), command)
    finally:
        pack.unlink()


async def contents(path: Path) -> AsyncIterator[bytes]:
    """A file's bytes in chunks."""
    with path.open("rb") as file:
        while data := await asyncio.to_thread(file.read, CHUNK):
            yield data
