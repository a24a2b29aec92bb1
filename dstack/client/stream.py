"""A connection to the server that was upgraded to a stream in both directions."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator, Sequence

from dstack.errors import DstackError, ErrorCode
from dstack.model.api.streams import SILENCE_SECONDS, FrameKind, FrameReader, frame, frames

PIECE = 64 * 1024
ROOM = 256 * 1024
"""Bytes that may wait to be sent before the caller should read no more input."""


class Stream:
    """For one thread. Never blocks except in `wait`: one loop can pass bytes in both directions."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._outgoing = bytearray()
        self._frames = FrameReader()
        self._heard = time.monotonic()
        self.send(FrameKind.PING)  # the server waits for it

    @property
    def has_room(self) -> bool:
        """Whether more input should be read."""
        return len(self._outgoing) < ROOM

    def send(self, kind: FrameKind, data: bytes = b"") -> None:
        """Send data, or keep it to be sent by `wait`."""
        for each in frames(kind, data) if data else [frame(kind)]:
            self._outgoing += each
        self._flush()

    def write(self, whole: bytes) -> None:
        """Send one frame that is complete."""
        self._outgoing += whole
        self._flush()

    def wait(self, inputs: Sequence[int]) -> list[int]:
        """Wait until the server sent something, or one of these descriptors can be read; return which can. Raises
        DstackError if the server has been silent for too long."""
        own = self._socket.fileno()
        left = self._heard + SILENCE_SECONDS - time.monotonic()
        readable, writable, _ = select.select([own, *inputs], [own] if self._outgoing else [], [], max(0.0, left))
        if writable:
            self._flush()
        if not (readable or writable) and left <= 0:
            raise self._broken(f"it has been silent for {SILENCE_SECONDS:.0f} seconds")
        return [each for each in readable if each != own]

    def receive(self) -> Iterator[tuple[FrameKind, bytes]]:
        """Yield the frames that have arrived. Raises DstackError if the connection has broken."""
        while True:
            try:
                data = self._socket.recv(PIECE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise self._broken(error.strerror or str(error)) from error
            if not data:
                raise self._broken("the server closed it")
            self._heard = time.monotonic()
            try:
                yield from self._frames.feed(data)
            except ValueError as error:
                raise self._broken(str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def _flush(self) -> None:
        """Send what the connection takes now. If it is broken, `receive` says so."""
        while self._outgoing:
            try:
                sent = self._socket.send(self._outgoing[:ROOM])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError:
                self._outgoing.clear()
                return
            del self._outgoing[:sent]

    def _broken(self, why: str) -> DstackError:
        message = f"the connection to the server broke: {why}; what ran in the container was ended"
        return DstackError(message, hint="dstack server status", code=ErrorCode.CONNECTION_BROKE)
