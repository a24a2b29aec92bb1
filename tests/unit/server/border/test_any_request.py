"""Whatever a request holds, the answer is a clear one: never an internal error, a traceback or a wait without end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from starlette.requests import Request
from starlette.types import ASGIApp

from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.sampling import Sampler
from dstack.engine.retention.retention import Retention
from dstack.errors import HostUnreachableError
from dstack.hosts.pool import Pool
from dstack.model.api import wire
from dstack.model.code.snapshot import Snapshot
from dstack.model.paths import ServerLayout
from dstack.server.access import Access
from dstack.server.app import application, table
from dstack.server.border.listener import Border
from dstack.server.border.names import OwnNames
from dstack.server.endpoints import Endpoint, problem_response
from dstack.server.registrations import RegistrationService
from dstack.server.roles import Allowed
from dstack.server.runner_service import RunnerService
from dstack.store.store import Store
from tests.unit.engine.submission.test_plan import SUBMISSION
from tests.unit.store.test_store import job, run

EXAMPLES = int(os.environ.get("DSTACK_EXAMPLES", "60"))
"""How many requests are tried."""
TOKEN = "t"
JOB = "0123456789ab"
SECONDS = 20.0


class NoMachines:
    """Stands for all machines: none can be reached. A test must not connect to where a random address leads."""

    def __getattr__(self, name: str) -> Any:
        async def unreachable(*given: object, **named: object) -> None:
            raise HostUnreachableError("no machine here")

        return unreachable


class NoPool(Pool):
    dialer = NoMachines()  # type: ignore[assignment]

    def get(self, runner: object) -> Any:
        return NoMachines()


class World:
    """The whole application over a real store, without an engine that runs."""

    def __init__(self, folder: Path) -> None:
        layout = ServerLayout(folder)
        self.store = Store(layout)
        self.store.runs.add(replace(run("known"), snapshot=Snapshot(repo="r", tree="0" * 40)))
        self.store.jobs.add(job(JOB, "known"))
        self.store.tokens.share(TOKEN)
        fleet = Fleet(self.store, NoPool(), lambda: None)
        context = Context(layout=layout, store=self.store, fleet=fleet, events=Events())
        engine = Engine(context)
        machines = RegistrationService(RunnerService(engine, Sampler(self.store, fleet)))
        self.routes = table(engine, Retention(context), machines, "", lambda: None)
        access = Access(
            application(self.routes, self.store.database.synced),
            self.store.tokens,
            Allowed(),
            problem_response,
        )
        self.app: ASGIApp = Border(OwnNames()).around(access)

    async def ask(
        self, method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer. A stream is left after a moment."""
        scope = {"type": "http", "method": method, "path": path.decode(errors="replace"), "query_string": query}
        scope |= {"headers": headers, "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "scheme": "http"}
        sent: list[dict[str, Any]] = []
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            if (message := next(given, None)) is None:
                await asyncio.sleep(0.02)
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(self.app(scope, receive, send), SECONDS)
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("home"))
    yield made
    made.store.close()


texts = st.text(max_size=20) | st.sampled_from(
    ["", "0", "-1", "9" * 30, "nan", "inf", "1e400", "\0", "\udcff", "../x", "known", JOB]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
SUBMITTED = json.loads(wire.encode(SUBMISSION))
DEEP = [b'{"refs":' + b"[" * depth + b"]" * depth + b"}" for depth in (1, 500, 3000, 100_000)]
DEEP += [b'{"x":' * depth + b"1" + b"}" * depth for depth in (500, 3000, 100_000)]
NAMES = ("from", "path", "limit", "nothing")


def fields(endpoint: Endpoint) -> list[str]:
    """The names that mean something to an endpoint, in its query or its body."""
    hints = {name: kind for name, kind in get_type_hints(endpoint).items() if name != "return"}
    found = [*NAMES, *(SUBMITTED if Request in hints.values() else ())]
    for name, kind in hints.items():
        found += kind.__struct_fields__ if hasattr(kind, "__struct_fields__") else [name]
    return found


def bodies(names: list[str]) -> st.SearchStrategy[bytes]:
    documents = st.dictionaries(st.sampled_from(names), values, max_size=6)
    return (
        documents.map(lambda value: json.dumps(value).encode())
        | documents.map(lambda value: json.dumps({**SUBMITTED, **value}).encode() + b"\nPACK")
        | st.binary(max_size=50)
        | st.sampled_from(DEEP)
    )


@st.composite
def requests(draw: st.DrawFn, routes: list[tuple[str, str, Endpoint]]) -> tuple[str, bytes, bytes, Any, bytes]:
    method, path, endpoint = draw(st.sampled_from(routes))
    names = fields(endpoint)
    parts = [
        draw(texts).encode(errors="surrogateescape") if part.startswith("{") else part.encode()
        for part in path.split("/")
    ]
    query = draw(st.dictionaries(st.sampled_from(names), texts, max_size=4))
    given = b"&".join(
        f"{name}={quote_from_bytes(text.encode(errors='surrogateescape'))}".encode() for name, text in query.items()
    )
    headers = [(b"host", draw(st.sampled_from([b"127.0.0.1", b"localhost:8", b"evil.example", b"[::1", b""])))]
    if draw(st.integers(0, 9)):
        headers[0] = (b"host", b"127.0.0.1")
        headers.append((b"authorization", f"Bearer {TOKEN}".encode()))
    for name in draw(st.lists(st.sampled_from([b"origin", b"x-dstack-user", b"x-forwarded-proto"]), max_size=1)):
        headers.append((name, draw(st.binary(max_size=20))))
    return method, b"/v1" + b"/".join(parts), given, headers, draw(bodies(names))


def test_no_request_is_an_internal_error(world: World, caplog: pytest.LogCaptureFixture) -> None:
    routes = world.routes

    @settings(
        max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], database=None
    )
    @given(requests(routes))
    def try_one(request: tuple[str, bytes, bytes, Any, bytes]) -> None:
        caplog.clear()
        status, body = asyncio.run(world.ask(*request))

        assert status < 500 or b'"code":"host' in body or b'"code":"storage' in body, body
        assert b"Traceback" not in body
        assert not [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR]
        if status >= 400:
            assert json.loads(body)["message"]

    try_one()
