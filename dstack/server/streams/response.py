"""The answer that turns a request's connection into a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dstack.errors import DstackError, UsageError
from dstack.model.api.streams import UPGRADE
from dstack.server.border.upgrade import SCOPE, Upgraded
from dstack.server.endpoints import HEADERS, problem_response

Accept = Callable[[], Upgraded]
"""Answers the request with 101 and returns its connection."""


class StreamResponse(Response):
    """`serve` gets a function that upgrades the connection. What it raises before it calls that is answered as the
    error of any other request."""

    def __init__(self, serve: Callable[[Accept], Awaitable[None]]) -> None:
        super().__init__()
        self.serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted: list[Upgraded] = []

        def accept() -> Upgraded:
            accepted.append(scope[SCOPE](head()))
            return accepted[0]

        try:
            await self.serve(accept)
        except DstackError as error:
            if accepted:
                raise
            await problem_response(error)(scope, receive, send)
        finally:
            for connection in accepted:
                connection.close()


def head() -> bytes:
    lines = ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", f"Upgrade: {UPGRADE}"]
    lines += [f"{name}: {value}" for name, value in HEADERS.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def require_upgrade(request: Request) -> None:
    """Raise UsageError for a request whose connection can't become a stream."""
    if request.headers.get("upgrade", "").lower() != UPGRADE or SCOPE not in request.scope:
        raise UsageError(
            f"this request needs an HTTP upgrade to {UPGRADE}, and its header Upgrade did not arrive",
            hint="a reverse proxy in front of the server has to pass on the headers Upgrade and Connection,"
            " as for WebSockets",
        )
