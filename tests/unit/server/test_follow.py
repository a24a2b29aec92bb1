"""The order of the frames of a job that is followed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.engine.context import Context, Events
from dstack.engine.fleet.runners import Fleet
from dstack.hosts.pool import Pool
from dstack.model.api import wire
from dstack.model.api.runs import Event
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.server.follow import Follower
from dstack.store.store import Store
from tests.unit.store.test_store import job, run


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    layout = ServerLayout(tmp_path)
    store = Store(layout)
    store.runs.add(run("brave-otter-7"))
    store.jobs.add(job("a" * 12, "brave-otter-7"))
    yield Context(layout=layout, store=store, fleet=Fleet(store, Pool(), lambda: None), events=Events())
    store.close()


def frames(context: Context, **asked: Any) -> list[tuple[str, object]]:
    async def collected() -> list[bytes]:
        follower = Follower(context, "brave-otter-7", asked.get("offsets", {}), live=False, logs=True)
        return [frame async for frame in follower.frames()]

    seen: list[tuple[str, object]] = []
    for frame in asyncio.run(collected()):
        head, _, data = frame.partition(b"\n")
        event = wire.decode(head, Event)
        seen.append((event.event, data or (event.job and event.job.status) or (event.run and event.run.name)))
    return seen


def test_the_whole_log_comes_before_the_frame_that_says_that_the_job_ended(context: Context) -> None:
    for status in (Status.PREPARING, Status.RUNNING, Status.UPLOADING, Status.DONE):
        context.store.jobs.change("a" * 12, status=status)
    context.store.logs.append("a" * 12, b"the last line\n")

    assert frames(context) == [("log", b"the last line\n"), ("job", Status.DONE), ("run", "brave-otter-7")]


def test_the_frame_of_a_job_that_runs_comes_before_its_log(context: Context) -> None:
    for status in (Status.PREPARING, Status.RUNNING):
        context.store.jobs.change("a" * 12, status=status)
    context.store.logs.append("a" * 12, b"a line\n")

    assert frames(context) == [("job", Status.RUNNING), ("log", b"a line\n"), ("run", "brave-otter-7")]


def test_a_reader_gets_what_it_lacks(context: Context) -> None:
    context.store.logs.append("a" * 12, b"0123456789")

    assert ("log", b"789") in frames(context, offsets={"a" * 12: 7})
