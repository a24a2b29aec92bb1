"""`GET /events`: what it returns, and how it is followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dstack.engine.context import Context, Events
from dstack.engine.fleet.runners import Fleet
from dstack.hosts.pool import Pool
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.runner.runner import Address, Runner
from dstack.server.endpoints import Endpoint, answering
from dstack.server.follow_events import EventRoutes
from dstack.store.store import Store
from tests.unit.store.test_store import job, run


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    store = Store(ServerLayout(tmp_path))
    fleet = Fleet(store, Pool(), lambda: None)
    yield Context(layout=ServerLayout(tmp_path), store=store, fleet=fleet, events=Events())
    store.close()


async def body(answer: Response) -> Any:
    if isinstance(answer, StreamingResponse):
        return json.loads(b"".join([part async for part in answer.body_iterator]))  # type: ignore[misc]
    return json.loads(bytes(answer.body))


async def sent(endpoint: Endpoint, user: str = "", **asked: object) -> Response:
    headers = [(b"x-dstack-user", user.encode())] if user else []
    scope = {"type": "http", "method": "GET", "path": "/v1/events", "headers": headers}
    return await answering(endpoint)(Request({**scope, "query_string": urlencode(asked).encode()}))


def endpoint(context: Context) -> Endpoint:
    return EventRoutes(context).events


def ids(context: Context, **asked: object) -> list[int]:
    async def listed() -> Any:
        return await body(await sent(endpoint(context), **asked))

    return [event["id"] for event in asyncio.run(listed())]


def problem(context: Context, **asked: object) -> str:
    answer = asyncio.run(sent(endpoint(context), **asked))
    assert answer.status_code >= 400
    return str(json.loads(bytes(answer.body))["message"])


def populate(store: Store) -> None:
    """Record two runs of one job each: events 1 to 4; and a runner: event 5."""
    for name in ("brave-otter-7", "calm-fox-1"):
        store.runs.add(run(name))
        store.jobs.add(job(f"{name[0]}" * 12, name))
    store.runners.add(Runner(name="lab1", address=Address(host="lab1")))


def test_it_lists_the_events_of_what_is_named(context: Context) -> None:
    populate(context.store)

    assert ids(context) == [1, 2, 3, 4, 5]
    assert ids(context, limit=2) == [4, 5]
    assert ids(context, ref="brave") == [1, 2]
    assert ids(context, ref="cccc") == [4]
    assert ids(context, runner="lab1") == [5]
    assert ids(context, since="2026-01-01T01:00:00+01:00") == [1, 2, 3, 4, 5]
    assert ids(context, since="2999-01-01T00:00:00Z") == []


def test_a_long_list_is_read_in_batches(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dstack.server.follow_events.BATCH", 2)
    populate(context.store)

    assert ids(context) == [1, 2, 3, 4, 5]
    assert ids(context, limit=3) == [3, 4, 5]
    assert ids(context, limit=0) == []
    assert len(asyncio.run(followed(context, ref="brave"))) == 6


def test_what_is_gone_is_still_found_by_its_name(context: Context) -> None:
    populate(context.store)
    context.store.runners.remove("lab1")
    context.store.runs.hide("brave-otter-7")

    assert ids(context, runner="lab1") == [5, 6]
    assert ids(context, ref="brave-otter-7") == [1, 2, 7]
    assert problem(context, ref="nope") == "no run or job 'nope'"
    assert problem(context, runner="lab2") == "no runner 'lab2'"
    assert "not valid" in problem(context, limit="many")
    assert "not valid" in problem(context, limit=10**30)
    assert "not valid" in problem(context, after=10**30)


def test_a_request_is_made_by_the_user_that_it_names(context: Context) -> None:
    populate(context.store)

    async def drain(request: Request) -> Any:
        context.store.runners.change("lab1", drained="a new disk")
        return {}

    asyncio.run(sent(drain, user="zo%C3%AB"))
    context.store.runners.change("lab1", drained=None)

    assert [event.actor for event in context.store.events.select()[-2:]] == ["zoë", "server"]


async def followed(context: Context, **asked: object) -> list[str]:
    """Follow the events while a job runs. Return the kinds, in the order of the frames."""
    store = context.store
    answer = await sent(endpoint(context), follow=1, **asked)
    assert isinstance(answer, StreamingResponse)
    kinds: list[str] = []

    async def read() -> None:
        async for frame in answer.body_iterator:
            kinds.extend(json.loads(line)["entry"]["kind"] for line in frame.splitlines())  # type: ignore[union-attr]

    reading = asyncio.create_task(read())
    for change in (Status.PREPARING, Status.RUNNING, Status.UPLOADING, Status.DONE):
        await asyncio.sleep(0.01)
        store.jobs.change("b" * 12, status=change)
    await asyncio.wait_for(reading, 10)
    return kinds


def test_followers_get_each_event_once_until_the_run_has_ended(context: Context) -> None:
    populate(context.store)

    kinds = asyncio.run(followed(context, ref="brave-otter-7"))

    expected = ["run.submitted", "job.queued", "job.placed", "job.running", "job.uploading", "job.done"]
    assert kinds == expected


def test_a_follower_may_want_new_events_only(context: Context) -> None:
    populate(context.store)

    kinds = asyncio.run(followed(context, ref="bbbb", limit=0))

    assert kinds == ["job.placed", "job.running", "job.uploading", "job.done"]


def test_a_follower_that_comes_back_gets_what_it_missed(context: Context) -> None:
    populate(context.store)

    kinds = asyncio.run(followed(context, ref="brave", limit=0, after=1))

    assert kinds == ["job.queued", "job.placed", "job.running", "job.uploading", "job.done"]
