"""The order of the frames of a job that is followed."""

from __future__ import annotations

import asyncio
import os
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
from dstack.server.follow import Begin, Follower, Recent
from dstack.server.views import job_view
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
        follower = Follower(context, "brave-otter-7", asked.pop("offsets", {}), live=False, logs=True, **asked)
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


LARGE = 500_000_000


def bytes_read() -> int:
    """How many bytes this process has read so far, by any call."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize(
    ("begin", "logged"),
    [
        (Begin(tail=2), [b"", b"b\nc\n"]),
        (Begin(tail=0), [b""]),
        (Begin(since=50.0), [b"", b"a\nb\nc\n"]),
        (Begin(tail=1, since=50.0), [b"", b"c\n"]),
        (Begin(since=200.0), [b""]),
    ],
)
def test_the_end_of_a_large_log_costs_a_few_blocks(
    context: Context, monkeypatch: pytest.MonkeyPatch, begin: Begin, logged: list[bytes]
) -> None:
    # Given a log whose last lines arrived later than the others
    now = [1.0]
    monkeypatch.setattr("dstack.store.logs.time.time", lambda: now[0])
    context.store.logs.append("a" * 12, b"first\n")
    os.truncate(context.layout.log("a" * 12), LARGE)
    with context.layout.log("a" * 12).open("ab") as log:
        log.write(b"\n")
    now[0] = 100.0
    context.store.logs.append("a" * 12, b"a\nb\nc\n")

    # When its end is asked for
    before = bytes_read()
    seen = frames(context, begin=begin)

    # Then nothing else is read; an empty frame says where it begins
    assert bytes_read() - before < 300_000
    assert [data for kind, data in seen if kind == "log" and isinstance(data, bytes)] == [
        each for each in logged if each
    ]
    assert len([kind for kind, _ in seen if kind == "log"]) == len(logged)


def test_thousands_of_followers_share_what_is_read(context: Context) -> None:
    # Given followers of a job that runs
    for status in (Status.PREPARING, Status.RUNNING):
        context.store.jobs.change("a" * 12, status=status)
    recent = Recent()
    logs = context.store.logs
    followers = [Follower(context, "brave-otter-7", {}, live=True, logs=True, recent=recent) for _ in range(1000)]

    def read(data: bytes) -> int:
        logs.append("a" * 12, data)
        before = bytes_read()
        for follower in followers:
            frame = b"".join(follower.log(context.store.jobs.require("a" * 12)))
            follower.sent["a" * 12] = job_view(context.store.jobs.require("a" * 12))
            assert frame.endswith(data)
        return bytes_read() - before

    # Then each new piece is read once, for all of them
    size = 100_000
    assert read(b"x" * size) < 2 * size
    assert read(b"y" * size) < 2 * size
