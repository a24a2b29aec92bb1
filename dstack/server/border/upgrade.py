"""A connection that is no longer HTTP: bytes in both directions, as long as either side wants."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from uvicorn.protocols.http.flow_control import FlowControl

SCOPE = "dstack.upgrade"
"""Where a request's scope has the function that upgrades its connection."""
BUFFER = 256 * 1024
"""Bytes that may wait in memory, about, before the client has to wait."""
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""A client that vanished, such as a laptop without its network, is noticed after half a minute."""


class Upgraded:
    """Reads and writes the connection. Neither side may fill the memory: `send` waits for a client that reads slowly,
    and a client waits for a server that does. `gone` is set once the client has left."""

    def __init__(self, transport: asyncio.Transport, flow: FlowControl) -> None:
        self._transport = transport
        self._flow = flow
        self._reader = asyncio.StreamReader(BUFFER)
        self._reader.set_transport(transport)
        self.gone = asyncio.Event()
        keep_alive(transport.get_extra_info("socket"))

    def feed(self, data: bytes) -> None:
        """Take bytes that arrived."""
        if data:
            self._reader.feed_data(data)

    def end(self) -> None:
        """Note that the client has gone."""
        self._reader.feed_eof()
        self.gone.set()

    async def receive(self) -> bytes:
        """Return the next bytes; b"" once the client has gone."""
        try:
            return await self._reader.read(BUFFER)
        except OSError:
            return b""

    async def send(self, data: bytes) -> None:
        """Write, and wait until there is room for more. Raises ConnectionResetError if the client has gone."""
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(data)
        await self._flow.drain()

    def close(self) -> None:
        """Send what was written, and close the connection."""
        self._transport.close()


def keep_alive(connection: socket.socket | None) -> None:
    """Have the system look every few seconds whether the other side is still there."""
    if connection is None or connection.family == socket.AF_UNIX:
        return
    with suppress(OSError):  # it has broken, which the reader learns
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):  # macOS lacks one
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
