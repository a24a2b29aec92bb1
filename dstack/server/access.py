"""Who may ask: anybody who can open the unix socket, and over TCP whoever has the token."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from dstack.errors import UnauthorizedError

OPEN = re.compile(r"GET /dstack-runner|POST /v1/registrations(/[^/]+/heartbeat)?")
"""What a machine may ask that registers: the first is public, and the others look at their tokens themselves."""

Refusal = Callable[[UnauthorizedError], ASGIApp]


def hashed(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Access:
    """Refuses TCP requests without the token, and knows when the last request was under way."""

    def __init__(
        self, app: ASGIApp, token_hash: Callable[[], str | None], refuse: Callable[[UnauthorizedError], ASGIApp]
    ):
        self.app = app
        self.token_hash = token_hash
        self.refuse = refuse
        self.active = 0
        self.last = time.monotonic()

    @property
    def idle(self) -> float:
        """Seconds since the last request ended."""
        return 0.0 if self.active else time.monotonic() - self.last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        self.active += 1
        try:
            await self.choose(scope)(scope, receive, send)
        finally:
            self.active -= 1
            self.last = time.monotonic()

    def choose(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http" or scope.get("server") is None or scope["server"][1] is None:
            scope["dstack.caller"] = "owner"
            take_agent(dict(scope.get("headers", ())).get(b"x-dstack-agent", b""))
            return self.app
        scope["dstack.caller"] = "user"
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, token = given.partition(" ")
        expected = self.token_hash()
        if expected and scheme.lower() == "bearer" and hmac.compare_digest(hashed(token), expected):
            return self.app
        scope["dstack.caller"] = "nobody"
        if OPEN.fullmatch(f"{scope['method']} {scope['path']}"):
            return self.app
        return self.refuse(
            UnauthorizedError(
                "the server wants a token, and this is not it" if given else "the server wants a token",
                hint="dstack config --token TOKEN, or set DSTACK_TOKEN",
            )
        )


def take_agent(path: bytes) -> None:
    """Use the SSH agent of the session that asks: the one that the server was started from may be gone. Only who can
    open the server's own socket gets here."""
    if path and os.path.exists(path):
        os.environ["SSH_AUTH_SOCK"] = os.fsdecode(path)
