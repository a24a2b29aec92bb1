"""Bounds of connections: how many, how long one may wait or be silent, and how slowly a response may be read."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import resource
from asyncio.sslproto import SSLProtocol
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from dstack.errors import ErrorCode, TryAgainError
from dstack.model.api import wire
from dstack.server.border.upgrade import SCOPE, Upgraded
from dstack.server.endpoints import HEADERS, problem_of

HEAD_BYTES = 64 * 1024
"""Most bytes of a request's line and headers."""
HEAD_SECONDS = 15
"""Seconds that a new connection has for the TLS handshake and a request's headers."""
READ_SECONDS = 60.0
"""Seconds after which a client that does not read its response is dropped."""
STOP_SECONDS = 1.0
"""Seconds that a response has to end when the server stops. Clients resume streams from where they were cut off."""
MOST = 512
"""Most open connections: over TCP, and as many again over the unix socket."""
MOST_OF_A_PEER = 128
"""Most open connections of one address. The server's own machine, which may be a proxy, has no limit of its own."""

log = logging.getLogger("dstack.server")


def most_connections() -> int:
    """Return how many connections each socket may have, so that both leave half of the open files for other things."""
    return min(MOST, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


@dataclass
class OpenConnections:
    """Lets connections in. If there are too many, the one that has waited longest for a request makes room. Those of
    the unix socket are counted apart, so that its owner always gets in."""

    most: int = field(default_factory=most_connections)
    most_of_a_peer: int = MOST_OF_A_PEER
    open: list[BoundedConnection] = field(default_factory=list)

    def admit(self, new: BoundedConnection) -> bool:
        """Return whether the connection may stay: not if requests are in progress on all others."""
        self.open = [each for each in self.open if not each.raw.is_closing()]
        alike = [each for each in self.open if (each.peer is None) == (new.peer is None)]
        if new.peer is not None and not ipaddress.ip_address(new.peer).is_loopback:
            same = [each for each in alike if each.peer == new.peer]
            if len(same) >= self.most_of_a_peer and not make_room(same):
                return False
        alike = [each for each in alike if not each.raw.is_closing()]
        if len(alike) >= self.most and not make_room(alike):
            return False
        self.open.append(new)
        return True


def make_room(crowd: list[BoundedConnection]) -> bool:
    """Close the connection that has been idle for longest. Return False if none is idle."""
    idle = min((each for each in crowd if not each.busy), key=lambda each: each.since, default=None)
    if idle is not None:
        idle.raw.abort()
    return idle is not None


class BoundedConnection(H11Protocol):
    """One connection, within bounds. With `tls`, connections over TCP are encrypted; the unix socket never is."""

    raw: asyncio.Transport
    peer: str | None = None
    upgraded: Upgraded | None = None

    def __init__(self, open_connections: OpenConnections, tls: SSLContext | None, **given: Any) -> None:
        super().__init__(**given)
        self.open_connections = open_connections
        self.tls = tls
        self.since = self.loop.time()
        self.timers: dict[str, asyncio.TimerHandle] = {}
        self.app = self.offering(self.app)

    def offering(self, app: Any) -> Any:
        """Return the application, which may upgrade the connection of a request to a stream."""

        async def offered(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, SCOPE: self.upgrade}, receive, send)

        return offered

    def upgrade(self, head: bytes) -> Upgraded:
        """Answer the request with this head, and pass the connection's bytes on as they are from now on."""
        self.cycle.disconnected = True  # for uvicorn, this request is over
        self.upgraded = Upgraded(self.transport, self.flow)
        self.transport.write(head)
        self.upgraded.feed(self.conn.trailing_data[0])
        self.flow.resume_reading()
        return self.upgraded

    def _should_upgrade(self) -> bool:
        return False  # the application decides

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit the connection. After the TLS handshake, this is called again with the encrypted transport."""
        if not hasattr(self, "raw"):
            self.raw = self.transport = transport
            address = transport.get_extra_info("peername")
            self.peer = address[0].partition("%")[0] if isinstance(address, tuple) else None
            tls = self.tls if self.peer is not None else None
            if not self.open_connections.admit(self):
                self.refuse(secret=tls is not None)
                return
            self.start_timer("head", HEAD_SECONDS)
            if tls is not None:
                self.shake_hands(tls)
                return
        super().connection_made(transport)

    def shake_hands(self, tls: SSLContext) -> None:
        """Start TLS. asyncio's own servers would count a connection only after the handshake."""
        secure = SSLProtocol(self.loop, self, tls, None, server_side=True, ssl_handshake_timeout=HEAD_SECONDS)  # type: ignore[arg-type]
        self.raw.set_protocol(secure)
        secure.connection_made(self.raw)

    def refuse(self, *, secret: bool) -> None:
        """Close a connection that there is no room for. Without TLS, say why."""
        if not secret:
            error = TryAgainError(
                "the server has too many open connections", hint="try again in a moment", code=ErrorCode.TOO_MANY
            )
            problem, status = problem_of(error)
            body = wire.encode(problem)
            headers = {**HEADERS, "Content-Type": "application/json", "Content-Length": str(len(body))}
            lines = [f"HTTP/1.1 {status} -", *(f"{name}: {value}" for name, value in headers.items())]
            self.transport.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
        log.warning("refused a connection: %d are open, and all of them are busy", len(self.open_connections.open))
        self.start_timer("close", STOP_SECONDS)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        for name in list(self.timers):
            self.stop_timer(name)
        if self.upgraded is not None:
            self.upgraded.end()
        super().connection_lost(exc)

    def eof_received(self) -> None:
        if self.upgraded is not None:
            self.upgraded.end()

    def data_received(self, data: bytes) -> None:
        if self.upgraded is not None:
            self.upgraded.feed(data)
            return
        super().data_received(data)
        if self.busy:
            self.stop_timer("head")
        else:
            self.start_timer("head", HEAD_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.upgraded is None:  # whoever looks at a page of output may take their time
            self.start_timer("read", READ_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stop_timer("read")

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()
        if self.transport.is_closing():
            self.start_timer("close", READ_SECONDS)

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.start_timer("close", READ_SECONDS)

    def shutdown(self) -> None:
        super().shutdown()
        self.start_timer("stop", STOP_SECONDS)

    def start_timer(self, name: str, seconds: float) -> None:
        """Drop the connection after this time, unless the timer is stopped. One that runs is left alone."""
        if name not in self.timers:
            self.timers[name] = self.loop.call_later(seconds, self.drop, name)

    def stop_timer(self, name: str) -> None:
        timer = self.timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def drop(self, name: str) -> None:
        if name == "read":
            log.info("dropped a client that did not read its response for %.0f seconds", READ_SECONDS)
        self.raw.abort()
