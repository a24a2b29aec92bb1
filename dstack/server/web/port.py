"""The port of the web page: the server's own, or one on this machine alone that is open while the page is used."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from dstack.engine.supervisor import Supervisor
from dstack.model.api.server import PageLink
from dstack.server.endpoints import actor
from dstack.server.roles import caller
from dstack.server.web import html
from dstack.server.web.sessions import WebSessions
from dstack.store.tables.tokens import SHARED

UNUSED = 600.0
"""Seconds after which the port of a page that nobody uses is closed."""
ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
"""Where this machine reaches a server that listens on all addresses."""


@dataclass
class WebPort:
    """Opens the web page. `url` is where the server listens; `listen` serves one more socket; `idle` tells for how many
    seconds no page was asked for."""

    sessions: WebSessions
    tasks: Supervisor
    url: str
    listen: Callable[[socket.socket], Awaitable[asyncio.Server]]
    idle: Callable[[], float]
    own: str | None = None
    opened: float = 0.0

    async def link(self, request: Request) -> PageLink:
        """Return a link that signs the caller in once. Over TCP, it is below the URL that the client already uses."""
        sender = caller()
        token = sender.name or (SHARED if request.scope.get("dstack.token") else None)
        code = self.sessions.link(token, actor(request))
        over_tcp = request.scope.get("dstack.token") is not None
        return PageLink(path=f"/login{html.query(code=code)}", url=None if over_tcp else await self.reached())

    async def reached(self) -> str:
        """Return the URL of the page for this machine. A server without a port of its own gets one."""
        if "://" in self.url:
            parts = urlsplit(self.url)
            host = parts.netloc.rpartition(":")[0]
            return self.url.replace(f"//{host}:", f"//{ANY.get(host, host)}:", 1)
        self.opened = time.monotonic()
        if self.own is None:
            listening = socket.create_server(("127.0.0.1", 0))
            self.own = "http://{}:{}".format(*listening.getsockname())
            server = await self.listen(listening)
            self.tasks.start("the page's port", lambda: self.close_unused(server))
        return self.own

    async def close_unused(self, server: asyncio.Server) -> None:
        """Close the port once nobody has used it for a while."""
        left = UNUSED
        while left > 0:
            await asyncio.sleep(left)
            left = UNUSED - min(self.idle(), time.monotonic() - self.opened)
        self.own = None
        server.close()
