"""Decides who may send requests: anyone who can open the unix socket, and over TCP anyone with the token."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from dstack.errors import DstackError, ServerTroubleError, UnauthorizedError

OPEN = re.compile(r"GET /dstack-runner|POST /v1/registrations(/[^/]+/heartbeat)?")
"""Requests of `dstack-runner`, which need no server token: the first is public, the others check their own tokens."""


def hashed(token: str) -> str:
    """Return the hash that is stored in place of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


@dataclass
class Access:
    """Refuses TCP requests without the token, and tracks how long the server has been idle."""

    app: ASGIApp
    token_hash: Callable[[], str | None]
    refuse: Callable[[DstackError], ASGIApp]
    active: int = 0
    last: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> float:
        """Seconds since the last request ended."""
        return 0.0 if self.active else time.monotonic() - self.last

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.active += 1
        try:
            try:
                app = self.choose(scope)
            except ServerTroubleError as trouble:
                app = self.refuse(trouble)
            await app(scope, receive, send)
        finally:
            self.active -= 1
            self.last = time.monotonic()

    def choose(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http" or scope.get("server") is None or scope["server"][1] is None:
            scope["dstack.caller"] = "owner"
            agent = dict(scope.get("headers", ())).get(b"x-dstack-agent", b"")
            if agent and os.path.exists(agent):  # the session that started the server, and its agent, may have ended
                os.environ["SSH_AUTH_SOCK"] = os.fsdecode(agent)
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
        message = "the server does not accept this token" if given else "the server requires a token"
        return self.refuse(UnauthorizedError(message, hint="dstack config --token TOKEN, or set DSTACK_TOKEN"))
