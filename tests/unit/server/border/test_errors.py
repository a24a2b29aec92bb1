"""A mistake in a request is the client's, any other the server's own."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from dstack.model.api.artifacts import LinksRequest
from dstack.model.api.jobs import StopRequest
from dstack.server.app import application
from dstack.server.border.listener import Border
from dstack.server.border.names import OwnNames
from dstack.server.endpoints import Endpoint


async def unneeded() -> None:
    """Nothing is written here."""


def ask(endpoint: Endpoint, query: bytes = b"", body: bytes = b"") -> tuple[int, dict[str, Any]]:
    """The status and the JSON of the answer to `POST /v1/try` from the application and its border."""
    app = Border(OwnNames()).around(application([("POST", "/try", endpoint)], unneeded))
    scope = {"type": "http", "method": "POST", "path": "/v1/try", "query_string": query, "scheme": "http"}
    scope |= {"headers": [(b"host", b"localhost")], "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2)}
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def run() -> None:
        try:
            await app(scope, receive, send)
        except Exception:
            logging.getLogger("uvicorn.error").exception("as uvicorn logs it")

    asyncio.run(run())
    return sent[0]["status"], json.loads(b"".join(message.get("body", b"") for message in sent[1:]))


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyError("x"), UnicodeError("x"), RecursionError("x"), OverflowError("x")]
)
def test_an_error_of_the_servers_own_work_is_not_blamed_on_the_request(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise error

    status, problem = ask(broken)

    assert (status, problem["code"], problem["exit_code"]) == (500, "internal", 125)
    assert problem["hint"] == "dstack server logs"
    assert "Traceback" not in json.dumps(problem)
    assert len([record for record in caplog.records if record.exc_info]) == 1


def number(limit: int = 0, fresh: float = 0) -> list[float]:
    return [limit, fresh]


def link(wish: LinksRequest) -> list[str]:
    return [ascii(path) for path in wish.paths]


def stop(wish: StopRequest) -> int:
    return len(wish.refs)


@pytest.mark.parametrize(
    ("endpoint", "query", "body", "words"),
    [
        (number, b"limit=9999999999999999999999", b"", "is out of range"),
        (number, b"limit=9223372036854775807", b"", "is out of range"),
        (number, b"limit=1e999", b"", "out of range"),
        (number, b"fresh=nan", b"", "is out of range"),
        (number, b"limit=%ff", b"", "a text in it is not UTF-8"),
        (stop, b"", b'{"refs": ["\\udcff"]}', "a text in it is not UTF-8"),
        (stop, b"", b'{"refs": ["\xff"]}', "UTF-8"),
        (stop, b"", b'{"x":' * 3000 + b"1" + b"}" * 3000, "it is nested too deeply"),
        (stop, b"", b"[" * 100_000, "got `array`"),
        (link, b"", b'{"paths": ["a\\u0000b"]}', "a path contains a NUL character"),
    ],
)
def test_a_request_that_cannot_be_read_is_refused_with_a_sentence(
    endpoint: Endpoint, query: bytes, body: bytes, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, problem = ask(endpoint, query, body)

    assert (status, problem["code"]) == (400, "usage")
    assert problem["message"].startswith("the request is not valid: ")
    assert words in problem["message"]
    assert not caplog.records


def test_paths_may_hold_any_bytes_but_nul() -> None:
    assert ask(link, body=b'{"paths": ["a\\udcff"]}') == (200, ["'a\\udcff'"])


def test_infinity_is_a_number() -> None:
    assert ask(number, b"fresh=inf")[0] == 200
