"""Whatever a request holds, the answer is a clear one: never an internal error, a traceback or a wait without end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import ASGIApp

from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.sampling import Sampler
from dstack.engine.retention.retention import Retention
from dstack.errors import HostUnreachableError
from dstack.hosts.pool import Pool
from dstack.model.api import wire
from dstack.model.paths import ServerLayout
from dstack.server.access import Access, hashed
from dstack.server.app import application, table
from dstack.server.border.listener import Border
from dstack.server.border.names import OwnNames
from dstack.server.endpoints import problem_response
from dstack.server.registrations import RegistrationService
from dstack.server.runner_service import RunnerService
from dstack.store.store import Store
from tests.unit.engine.submission.test_plan import SUBMISSION

EXAMPLES = int(os.environ.get("DSTACK_EXAMPLES", "150"))
"""How many requests are tried per route."""
TOKEN = "t"
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
        self.store.settings.set("token", hashed(TOKEN))
        fleet = Fleet(self.store, NoPool(), lambda: None)
        context = Context(layout=layout, store=self.store, fleet=fleet, events=Events())
        engine = Engine(context)
        machines = RegistrationService(RunnerService(engine, Sampler(self.store, fleet)))
        self.routes = table(engine, Retention(context), machines, "", lambda: None)
        access = Access(application(self.routes), lambda: self.store.settings.get("token"), problem_response)
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
                await asyncio.sleep(0.2)
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


texts = st.text(max_size=20) | st.sampled_from(["", "0", "-1", "9" * 30, "nan", "inf", "1e400", "\0", "\udcff", "../x"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "ref refs path paths name user workflow limit offset after since runner follow logs from force fresh status "
    "older_than keep_last dry_run unused_for images everything abort address host port labels secret value storage "
    "host_keys max_gpus_per_user reason fingerprint interval unavailable url endpoint_url gpus root docker"
).split()
documents = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)
SUBMITTED = json.loads(wire.encode(SUBMISSION))
submissions = st.dictionaries(st.sampled_from([*SUBMITTED, *FIELDS]), values, max_size=3).map(
    lambda changes: {**SUBMITTED, **changes}
)
bodies = (
    documents.map(lambda value: json.dumps(value).encode())
    | submissions.map(lambda value: json.dumps(value).encode() + b"\nPACK")
    | st.binary(max_size=50)
    | st.sampled_from([1, 500, 3000, 100_000]).map(lambda depth: b'{"refs":' + b"[" * depth + b"]" * depth + b"}")
    | st.sampled_from([500, 3000, 100_000]).map(lambda depth: b'{"x":' * depth + b"1" + b"}" * depth)
)


@st.composite
def requests(draw: st.DrawFn, routes: list[tuple[str, str, object]]) -> tuple[str, bytes, bytes, Any, bytes]:
    method, path, _ = draw(st.sampled_from(routes))
    parts = [
        draw(texts).encode(errors="surrogateescape") if part.startswith("{") else part.encode()
        for part in path.split("/")
    ]
    query = draw(st.dictionaries(st.sampled_from(FIELDS), texts, max_size=4))
    given = b"&".join(
        f"{name}={quote_from_bytes(text.encode(errors='surrogateescape'))}".encode() for name, text in query.items()
    )
    headers = [(b"host", draw(st.sampled_from([b"127.0.0.1", b"localhost:8", b"evil.example", b"[::1", b""])))]
    if draw(st.integers(0, 9)):
        headers[0] = (b"host", b"127.0.0.1")
        headers.append((b"authorization", f"Bearer {TOKEN}".encode()))
    for name in draw(st.lists(st.sampled_from([b"origin", b"x-dstack-user", b"x-forwarded-proto"]), max_size=1)):
        headers.append((name, draw(st.binary(max_size=20))))
    return method, b"/v1" + b"/".join(parts), given, headers, draw(bodies)


def test_no_request_is_an_internal_error(world: World, caplog: pytest.LogCaptureFixture) -> None:
    routes = world.routes

    @settings(
        max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], database=None
    )
    @given(requests(routes))
    def run(request: tuple[str, bytes, bytes, Any, bytes]) -> None:
        caplog.clear()
        status, body = asyncio.run(world.ask(*request))

        assert status < 500 or b'"code":"host' in body or b'"code":"storage' in body, body
        assert b"Traceback" not in body
        with suppress(StopIteration):
            record = next(each for each in caplog.records if each.levelno >= logging.ERROR)
            raise AssertionError(record.getMessage())
        if status >= 400:
            assert json.loads(body)["message"]

    run()
