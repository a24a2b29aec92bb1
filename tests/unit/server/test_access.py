"""Who may send requests over TCP: anyone with the server's token, and `dstack-runner` for what it needs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from dstack.errors import UnauthorizedError
from dstack.model.paths import ServerLayout
from dstack.server.access import Access
from dstack.server.roles import NOBODY, OWNER, Allowed
from dstack.store.store import Store
from dstack.store.tables.tokens import hashed

TOKEN = "a secret of the team"
TCP = ("0.0.0.0", 8000)
SOCKET = ("/home/ann/.dstack/server/socket", None)


Answered = Callable[..., str]


@pytest.fixture
def answered(tmp_path: Path) -> Iterator[Answered]:
    """Sends one request, and returns who the application takes the sender for, or the refusal."""
    store = Store(ServerLayout(tmp_path))
    yield partial(answer, store)
    store.close()


def answer(
    store: Store,
    method: str = "GET",
    path: str = "/v1/runs",
    *,
    authorization: str | None = None,
    server: tuple[str, int | None] = TCP,
    token: str | None = TOKEN,
) -> str:
    answers: list[str] = []
    if token:
        store.tokens.share(token)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope["dstack.caller"]
        answers.append({OWNER: "owner", NOBODY: "nobody"}.get(caller) or caller.role.value)

    def refuse(error: UnauthorizedError) -> ASGIApp:
        async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
            answers.append(error.message)

        return refusing

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        pass

    headers = [] if authorization is None else [(b"authorization", authorization.encode())]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, "server": server}
    access = Access(app, store.tokens, Allowed(), refuse)
    asyncio.run(access(scope, receive, send))
    return answers[0]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_the_token_lets_a_user_in(answered: Answered, scheme: str) -> None:
    assert answered(authorization=f"{scheme} {TOKEN}") == "admin"


@pytest.mark.parametrize(
    "authorization", ["Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer ", f"Bearer {hashed(TOKEN)}"]
)
def test_anything_else_does_not(answered: Answered, authorization: str) -> None:
    assert answered(authorization=authorization) == "the server does not accept this token"


def test_a_request_without_a_token_is_refused(answered: Answered) -> None:
    assert answered() == "the server requires a token"


def test_a_server_that_has_no_token_lets_nobody_in_over_tcp(answered: Answered) -> None:
    assert answered(authorization="Bearer ", token=None) == "the server does not accept this token"


def test_whoever_can_open_the_socket_needs_no_token(answered: Answered) -> None:
    assert answered(server=SOCKET) == "owner"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/dstack-runner"),
        ("POST", "/v1/registrations"),
        ("POST", "/v1/registrations/lab1/heartbeat"),
    ],
)
def test_dstack_runner_needs_no_token_of_the_server(answered: Answered, method: str, path: str) -> None:
    assert answered(method, path) == "nobody"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/dstack-runner"),
        ("GET", "/v1/registrations"),
        ("POST", "/v1/registrations/lab1/approve"),
        ("POST", "/v1/registrations/a/b/heartbeat"),
        ("POST", "/v1/registrations/lab1/heartbeat/more"),
        ("GET", "/dstack-runner/../v1/runs"),
    ],
)
def test_what_is_like_it_does(answered: Answered, method: str, path: str) -> None:
    assert answered(method, path) == "the server requires a token"


def test_a_server_is_idle_only_between_requests(tmp_path: Path) -> None:
    store = Store(ServerLayout(tmp_path))
    seen: list[float] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(access.idle)

    async def nothing(*_: Any) -> Any:
        return None

    access = Access(app, store.tokens, Allowed(), lambda error: app)
    access.last -= 60
    assert access.idle >= 60

    asyncio.run(access({"type": "http", "server": SOCKET, "headers": []}, nothing, nothing))

    assert seen == [0.0]
    assert access.idle < 60
    store.close()
