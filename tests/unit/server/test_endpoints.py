"""How a request becomes the call of an endpoint."""

from __future__ import annotations

import asyncio
import errno
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.sampling import Sampler
from dstack.engine.notify.notifier import Notifier
from dstack.engine.retention.retention import Retention
from dstack.engine.sweeps.sweeps import SweepDrives
from dstack.engine.triggers.loop import TriggerLoop
from dstack.errors import DiskFullError, StateBusyError, StateDamagedError, StorageError
from dstack.hosts.pool import Pool
from dstack.model.api.events import EventQuery
from dstack.model.api.jobs import StopRequest
from dstack.model.api.server import PageLink
from dstack.model.paths import ServerLayout
from dstack.server.app import application, table
from dstack.server.endpoints import Endpoint, answering
from dstack.server.registrations import RegistrationService
from dstack.server.runners.runner_service import RunnerService
from dstack.store.store import Store


def answer(endpoint: Endpoint, body: bytes = b"", *, method: str = "GET", **query: object) -> tuple[int, Any]:
    """The status and the JSON of an endpoint's answer at /v1/jobs/{ref}, where ref is `abc`."""
    scope = {"type": "http", "method": method, "path": "/v1/jobs/abc", "headers": [], "path_params": {"ref": "abc"}}

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request({**scope, "query_string": urlencode(query).encode()}, receive)
    response = asyncio.run(answering(endpoint)(request))
    return response.status_code, json.loads(bytes(response.body))


def listed(ref: str, path: str, limit: int = 20, whole: bool = False) -> list[object]:
    return [ref, path, limit, whole]


async def stopped(ref: str, wish: StopRequest) -> dict[str, object]:
    return {"ref": ref, "refs": wish.refs}


def queried(query: EventQuery) -> list[object]:
    return [query.limit, query.since]


def nothing() -> None:
    return None


def test_arguments_come_from_the_path_and_the_query() -> None:
    assert answer(listed, path="a b") == (200, ["abc", "a b", 20, False])
    assert answer(listed, path="a", limit=3, whole=1, unknown=1) == (200, ["abc", "a", 3, True])


def test_a_path_may_have_any_bytes() -> None:
    assert answer(listed, path=b"a\xff") == (200, ["abc", "a\udcff", 20, False])


def test_a_struct_comes_from_the_body() -> None:
    assert answer(stopped, b'{"refs": ["x"]}', method="POST") == (200, {"ref": "abc", "refs": ["x"]})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_struct_of_a_request_without_a_body_comes_from_the_query(method: str) -> None:
    assert answer(queried, method=method, limit=3, follow=1) == (200, [3, None])


def test_no_result_is_an_empty_object() -> None:
    assert answer(nothing) == (200, {})


@pytest.mark.parametrize(("query", "word"), [({}, "'path'"), ({"path": "a", "limit": "many"}, "int")])
def test_an_invalid_query_is_a_usage_error(query: dict[str, object], word: str) -> None:
    status, problem = answer(listed, **query)

    assert (status, problem["kind"]) == (400, "UsageError")
    assert problem["message"].startswith("the request is not valid: ")
    assert word in problem["message"]


@pytest.mark.parametrize("body", [b"", b"{", b'{"refs": 1}'])
def test_an_invalid_body_is_a_usage_error(body: bytes) -> None:
    status, problem = answer(stopped, body, method="POST")

    assert (status, problem["kind"], problem["exit_code"]) == (400, "UsageError", 2)


@pytest.mark.parametrize(
    ("error", "status", "again", "code"),
    [
        (StateBusyError("m"), 503, "1", "state-busy"),
        (DiskFullError("m"), 503, "60", "server-disk-full"),
        (OSError(errno.ENOSPC, "full"), 503, "60", "server-disk-full"),
        (OSError(errno.EMFILE, "too many"), 503, "60", "server-failed"),
        (MemoryError(), 503, "60", "server-failed"),
        (StateDamagedError("m"), 500, "60", "state-damaged"),
    ],
)
def test_trouble_of_the_server_asks_to_be_asked_again(error: Exception, status: int, again: str, code: str) -> None:
    def troubled() -> None:
        raise error

    scope = {"type": "http", "method": "GET", "path": "/v1/x", "headers": [], "query_string": b""}
    response = asyncio.run(answering(troubled)(Request(scope)))

    assert (response.status_code, response.headers["retry-after"]) == (status, again)
    assert json.loads(bytes(response.body))["code"] == code


async def link(request: Request) -> PageLink:
    raise NotImplementedError


@contextmanager
def routes(folder: Path) -> Iterator[list[tuple[str, str, Endpoint]]]:
    """All routes of a server in this folder."""
    store = Store(ServerLayout(folder))
    fleet = Fleet(store, Pool(), lambda: None)
    context = Context(layout=ServerLayout(folder), store=store, fleet=fleet, events=Events())
    engine = Engine(context)
    machines = RegistrationService(RunnerService(engine, Sampler(store, fleet)))
    drives, notifier, loop = SweepDrives(context, engine), Notifier(context), TriggerLoop(context, engine)
    yield table(engine, Retention(context), machines, drives, notifier, loop, "", lambda: None, link)
    store.close()


@pytest.mark.parametrize(("method", "expected"), [("GET", ["done"]), ("POST", ["done", "synced"])])
def test_what_a_request_changed_is_on_disk_before_it_is_acknowledged(method: str, expected: list[str]) -> None:
    steps: list[str] = []

    async def synced() -> None:
        steps.append("synced")

    async def answered() -> None:
        app = application([(method, "/change", lambda: steps.append("done"))], synced)
        scope = {"type": "http", "method": method, "path": "/v1/change", "headers": [], "query_string": b""}
        await app(scope, receive, send)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            steps.append(str(message["status"]))

    asyncio.run(answered())

    assert steps == [*expected, "200"]


def test_a_change_that_is_not_on_disk_is_not_acknowledged() -> None:
    async def broken() -> None:
        raise StorageError("the disk is broken")

    request = Request({"type": "http", "method": "POST", "path": "/v1/x", "headers": [], "query_string": b""})
    response = asyncio.run(answering(nothing, broken)(request))

    assert response.status_code == 500


def test_every_endpoint_takes_the_names_in_its_path(tmp_path: Path) -> None:
    with routes(tmp_path) as every:
        for _, path, endpoint in every:
            answering(endpoint)
            assert set(re.findall(r"{(\w+)}", path)) <= set(signature(endpoint).parameters), path
