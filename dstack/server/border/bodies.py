"""Bounds of requests' bodies: their size, which is checked before anything is read, and how slowly they may arrive."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from anyio import fail_after
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dstack.errors import ErrorCode, UsageError
from dstack.model.text.units import size_words
from dstack.server.endpoints import problem_response

SECONDS = 60.0
"""Seconds that a body has to arrive; one that is streamed, after each piece that arrived."""


@dataclass(frozen=True)
class BodyLimit:
    """`most` is in bytes. A streamed body is never whole in memory: it may be of any size that it announces."""

    most: int = 1 << 20
    streamed: bool = False


LIMITS = {
    re.compile(r"POST /v1/(runs|triggers)"): BodyLimit(streamed=True),
    re.compile(r"POST (/v1)?/hooks/[^/]+"): BodyLimit(5 << 20),
    re.compile(r"POST /v1/artifacts/[^/]+/urls"): BodyLimit(16 << 20),
    re.compile(r"POST /v1/registrations(/[^/]+/heartbeat)?"): BodyLimit(64 << 10),
}
"""The limits of routes that differ from the default. The last ones are open to everyone."""


def limit_of(scope: Scope) -> BodyLimit:
    route = f"{scope['method']} {scope['path']}"
    return next((limit for pattern, limit in LIMITS.items() if pattern.fullmatch(route)), BodyLimit())


@dataclass
class Bodies:
    """Refuses bodies beyond their limits, and closes connections whose body is not read to its end."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        announced = int(headers[b"content-length"]) if b"content-length" in headers else None
        body = BoundedBody(receive, send, limit_of(scope), announced, complete=not announced)
        body.complete = body.complete and b"transfer-encoding" not in headers
        try:
            body.check(announced or 0)
        except UsageError as error:
            await problem_response(error)(scope, receive, body.send)
            return
        await self.app(scope, body.receive, body.send)


@dataclass
class BoundedBody:
    """The body of one request. Once the response has started, the rest of it counts no longer."""

    received: Receive
    sent: Send
    limit: BodyLimit
    announced: int | None
    complete: bool
    size: int = 0
    deadline: float = 0.0
    answered: bool = False

    def check(self, size: int) -> None:
        """Raise UsageError if a body may not have this size."""
        most = max(self.limit.most, self.announced or 0) if self.limit.streamed else self.limit.most
        if size > most:
            unless = ", unless the request has a Content-Length" if self.limit.streamed else ""
            message = f"the request is too large: this route accepts at most {size_words(most)}{unless}"
            raise UsageError(message, code=ErrorCode.TOO_LARGE)

    async def receive(self) -> Message:
        """Return the next message. Raises UsageError for a body that is too large or too slow."""
        if self.complete or self.answered:
            return await self.received()
        now = time.monotonic()
        if not self.deadline or self.limit.streamed:
            self.deadline = now + SECONDS
        try:
            with fail_after(self.deadline - now):
                message = await self.received()
        except TimeoutError as error:
            text = f"the request did not arrive within {SECONDS:.0f} seconds, so nothing was done"
            raise UsageError(text, hint="check the connection, then send it again", code=ErrorCode.TOO_SLOW) from error
        self.size += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        self.check(self.size)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.answered = True
            if not self.complete:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await self.sent(message)
