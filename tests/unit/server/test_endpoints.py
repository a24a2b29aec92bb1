"""How a request becomes the call of an endpoint."""

from __future__ import annotations

import asyncio
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
from dstack.engine.retention.retention import Retention
from dstack.hosts.pool import Pool
from dstack.model.api.events import EventQuery
from dstack.model.api.jobs import StopRequest
from dstack.model.paths import ServerLayout
from dstack.server.app import table
from dstack.server.endpoints import Endpoint, answering
from dstack.server.registrations import RegistrationService
from dstack.server.runner_service import RunnerService
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


@contextmanager
def routes(folder: Path) -> Iterator[list[tuple[str, str, Endpoint]]]:
    """All routes of a server in this folder."""
    store = Store(ServerLayout(folder))
    fleet = Fleet(store, Pool(), lambda: None)
    context = Context(layout=ServerLayout(folder), store=store, fleet=fleet, events=Events())
    engine = Engine(context)
    machines = RegistrationService(RunnerService(engine, Sampler(store, fleet)))
    yield table(engine, Retention(context), machines, "", lambda: None)
    store.close()


def test_every_endpoint_takes_the_names_in_its_path(tmp_path: Path) -> None:
    with routes(tmp_path) as every:
        for _, path, endpoint in every:
            answering(endpoint)
            assert set(re.findall(r"{(\w+)}", path)) <= set(signature(endpoint).parameters), path
