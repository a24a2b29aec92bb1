"""Decides who may send requests: anyone who can open the unix socket, and over TCP anyone with a token."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from dstack.errors import DstackError, ServerTroubleError, UnauthorizedError
from dstack.model.api.tokens import Role
from dstack.server.roles import NOBODY, OWNER, Allowed, Caller
from dstack.store.tables.sessions import Session
from dstack.store.tables.tokens import SHARED, Tokens

OPEN = re.compile(r"GET /dstack-runner|POST /v1/registrations(/[^/]+/heartbeat)?|POST (/v1)?/hooks/[^/]+")
"""Requests that need no server token: those of `dstack-runner`, of which the first is public and the others check their
own tokens, and webhooks, which are signed."""
API = re.compile(r"/(v1|dstack-runner|hooks)(/.*)?")
"""The paths that only a token opens. All others are pages, which a session opens, too; they refuse by themselves."""


@dataclass
class Access:
    """Refuses TCP requests without a valid token, says who sends the others, and tracks how long the server has been
    idle. `session` finds that of a page's request. `open` are the requests in progress by the name of their token."""

    app: ASGIApp
    tokens: Tokens
    allowed: Allowed
    refuse: Callable[[DstackError], ASGIApp]
    session: Callable[[Scope], Session | None] = lambda scope: None
    active: int = 0
    last: float = field(default_factory=time.monotonic)
    open: dict[str, set[asyncio.Task[None]]] = field(default_factory=lambda: defaultdict(set))
    ended: set[asyncio.Task[None]] = field(default_factory=set)

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
            await self.answer(app, scope, receive, send)
        finally:
            self.active -= 1
            self.last = time.monotonic()

    async def answer(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the app answer, until the token is revoked: then the connection is closed."""
        task, name = asyncio.current_task(), scope.get("dstack.token")
        if task is None or name is None:
            return await app(scope, receive, send)
        self.open[name].add(task)
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            if task not in self.ended:
                raise
        finally:
            self.open[name].discard(task)
            self.ended.discard(task)

    def end(self, name: str) -> None:
        """End the requests in progress of a token that was revoked, except the one that revokes it."""
        for task in self.open.pop(name, set()) - {asyncio.current_task()}:
            self.ended.add(task)
            task.cancel()

    def choose(self, scope: Scope) -> ASGIApp:
        if scope["type"] != "http" or scope.get("server") is None or scope["server"][1] is None:
            scope["dstack.caller"] = OWNER
            agent = dict(scope.get("headers", ())).get(b"x-dstack-agent", b"")
            if agent and os.path.exists(agent):  # the session that started the server, and its agent, may have ended
                os.environ["SSH_AUTH_SOCK"] = os.fsdecode(agent)
            return self.app
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, token = given.partition(" ")
        known = self.tokens.find(token) if scheme.lower() == "bearer" else None
        if known:
            self.tokens.use(known)
            name = None if known.name == SHARED else known.name
            commands = known.role is Role.ADMIN and self.allowed.commands
            scope["dstack.token"] = known.name
            scope["dstack.caller"] = Caller(known.role, name, commands, self.allowed.storage)
            return self.app
        scope["dstack.caller"] = NOBODY
        if not API.fullmatch(scope["path"]):
            if not given and (session := self.session(scope)):
                scope["dstack.session"], scope["dstack.token"] = session, session.token
                scope["dstack.caller"] = caller_of(session, self.allowed)
            return self.app
        if OPEN.fullmatch(f"{scope['method']} {scope['path']}"):
            return self.app
        message = "the server does not accept this token" if given else "the server requires a token"
        return self.refuse(UnauthorizedError(message, hint="dstack config --token, or set DSTACK_TOKEN"))


def caller_of(session: Session, allowed: Allowed) -> Caller:
    """Return who acts in a session. A browser never gives commands as the server's user."""
    name = None if session.token in (None, SHARED) else session.token
    return Caller(session.role, name, storage=allowed.storage)
