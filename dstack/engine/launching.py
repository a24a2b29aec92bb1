"""Launches a job on the runner that it was placed on."""

from __future__ import annotations

import time

from dstack.commands.command import Command, Stdin
from dstack.commands.launch import Launched, launch, pull
from dstack.engine.gather import gathered, reached
from dstack.engine.order import order
from dstack.engine.placed import Placed
from dstack.engine.ship import launch_with_code, ship
from dstack.errors import HostError
from dstack.hosts.host import ask
from dstack.model.status import Status
from dstack.model.times import rfc3339


async def launched(placed: Placed) -> Launched:
    """Launch, after the host has what it lacks of code and image. A job that was begun before is left alone."""
    context, job, runner = placed.context, placed.job, placed.runner
    snapshot = placed.store.runs.require(job.run).snapshot
    needed = await context.dependencies(job)
    await reached(context, job, runner)
    there = await gathered(context, job, runner, needed)
    ordered = order(context, job, runner, artifacts=bool(needed), gathered=there)
    given: Stdin = b"" if there else context.tar(needed)
    place = placed.place
    answer = await launch_with_code(context, snapshot, runner, lambda pack: launch(place, ordered, given, pack))
    command = launch(place, ordered, given)
    if answer.outcome == "need-code":
        await ship(context, snapshot, runner, answer.has)
        answer = await ask(placed.host, command)
    if answer.outcome == "need-image":
        answer = await pulled(placed, command)
    return answer


async def pulled(placed: Placed, command: Command[Launched]) -> Launched:
    """Launch once the host has the image. It is pulled once, however many jobs there wait for it."""
    image, name = placed.job.image, placed.runner.name
    placed.change(reason=f"pulling {image} on {name}")
    async with placed.context.pulling[name, image]:
        answer = await ask(placed.host, command)
        if answer.outcome == "need-image":
            await ask(placed.host, pull(placed.place, image))
            answer = await ask(placed.host, command)
    return answer


def begun(placed: Placed, answer: Launched) -> None:
    """Record what the launch answered."""
    if answer.outcome not in ("started", "exists"):
        raise HostError(f"the job could not be launched: the host answered '{answer.outcome}'")
    placed.change(
        status=Status.RUNNING,
        started_at=placed.job.started_at or rfc3339(time.time()),
        launch=answer.launch,
        image_digest=answer.digest,
        reason=None,
        unreachable_since=None,
    )
