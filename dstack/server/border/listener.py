"""The HTTP server: uvicorn, with everything on the border in front of the application."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from dstack.server.border.bodies import Bodies
from dstack.server.border.connections import HEAD_BYTES, BoundedConnection, OpenConnections
from dstack.server.border.names import Addressed, OwnNames
from dstack.server.border.throttle import Throttle
from dstack.server.border.tls import Certificate

BACKLOG = 128
"""Connections that are accepted before the ones accepted earlier are counted."""


@dataclass
class Border:
    """What a server was started with: its names, the prefix of its routes over TCP, and its certificate for TLS."""

    names: OwnNames
    base: str = ""
    certificate: Certificate | None = None

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the application behind all checks of requests."""
        return Addressed(Bodies(Throttle(app)), self.names, self.base)


class Listener(uvicorn.Server):
    """Serves the application on its sockets until it is told to stop."""

    def __init__(self, app: ASGIApp, border: Border) -> None:
        tls = border.certificate.context if border.certificate else None
        protocol = partial(BoundedConnection, OpenConnections(), tls)
        config = uvicorn.Config(
            border.around(app),
            http=cast("type[asyncio.Protocol]", protocol),
            ws="none",
            backlog=BACKLOG,
            h11_max_incomplete_event_size=HEAD_BYTES,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)

    async def add(self, listening: socket.socket) -> asyncio.Server:
        """Serve the application on one more socket. Close what is returned to stop."""

        def connection() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )

        server = await asyncio.get_running_loop().create_server(connection, sock=listening, backlog=BACKLOG)
        self.servers.append(server)
        return server

    def stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and Ctrl-C. uvicorn would end the process before the engine has closed."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        yield
