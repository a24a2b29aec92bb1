"""Whatever a request holds, the answer is a clear one: never an internal error, a traceback or a wait without end."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints
from urllib.parse import quote_from_bytes

from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from dstack.model.api import wire
from dstack.server.endpoints import Endpoint
from tests.fuzz import fuzz
from tests.unit.engine.submission.test_plan import SUBMISSION
from tests.unit.server.world import JOB, TOKEN, World


@cache
def world() -> World:
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    made = World(Path(folder.name))
    atexit.register(made.store.close)
    return made


class Errors(logging.Handler):
    """Keeps what the server logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())


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


@fuzz
@given(st.data())
def test_no_request_is_an_internal_error(data: st.DataObject) -> None:
    request, errors = data.draw(requests(world().routes)), Errors()
    logging.getLogger().addHandler(errors)
    try:
        status, body = asyncio.run(world().ask(*request))
    finally:
        logging.getLogger().removeHandler(errors)

    assert status < 500 or b'"code":"host' in body or b'"code":"storage' in body, body
    assert b"Traceback" not in body
    assert not errors.seen
    if status >= 400:
        assert json.loads(body)["message"]
