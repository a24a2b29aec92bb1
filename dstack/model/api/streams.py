"""What travels over a connection that was upgraded from HTTP to a stream in both directions.

The client sends a POST with `Upgrade: dstack-stream`, and the server answers with 101. From then on both sides send
frames: a byte for the kind, four for the length (big endian), and the payload. The server sends nothing before the
client's first frame, so that an HTTP library that reads ahead loses nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum

from msgspec import Struct

from dstack.model.api.server import Problem

UPGRADE = "dstack-stream"
"""The protocol's name in the header `Upgrade`."""
PING_SECONDS = 15.0
"""Seconds between two PINGs of the server, which keep proxies from closing a connection that is merely quiet."""
SILENCE_SECONDS = 60.0
"""Seconds without any byte after which the client considers the connection broken."""
MOST = 256 * 1024
"""Bytes of one frame's payload."""
_HEAD = struct.Struct(">BI")
_SIZE = struct.Struct(">HH")


class FrameKind(IntEnum):
    """DATA is stdin, stdout, or what passes through a forwarded port; ERRORS is stderr. END: no more DATA comes in this
    direction. SIZE is the terminal's new size, EXIT the last frame of the server, PING has no meaning."""

    DATA = 1
    ERRORS = 2
    END = 3
    SIZE = 4
    EXIT = 5
    PING = 6


class TerminalView(Struct):
    """The user's terminal: its size in characters, and its TERM."""

    columns: int
    rows: int
    term: str = "xterm-256color"


class ExecRequest(Struct, kw_only=True):
    """The body of `POST /exec/{ref}`: a command, by default a shell, in a terminal if one is given."""

    command: tuple[str, ...] = ()
    terminal: TerminalView | None = None


class StreamEnd(Struct, kw_only=True):
    """The payload of EXIT: the command's exit code, and the error if there is one."""

    exit_code: int
    problem: Problem | None = None


def frame(kind: FrameKind, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return _HEAD.pack(kind, len(payload)) + payload


def frames(kind: FrameKind, data: bytes) -> Iterator[bytes]:
    """Yield data of any length as frames."""
    for start in range(0, len(data), MOST):
        yield frame(kind, data[start : start + MOST])


def size_frame(columns: int, rows: int) -> bytes:
    """Return the frame that tells a terminal's size."""
    return frame(FrameKind.SIZE, _SIZE.pack(columns, rows))


def size_of(payload: bytes) -> tuple[int, int]:
    """Return the columns and rows of a SIZE frame. Raises ValueError."""
    if len(payload) != _SIZE.size:
        raise ValueError("the frame has no size of a terminal")
    columns, rows = _SIZE.unpack(payload)
    return columns, rows


class FrameReader:
    """Splits the bytes of a stream into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[FrameKind, bytes]]:
        """Yield the frames that are complete now. Raises ValueError for bytes that are no frames."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._buffer)
            if length > MOST or kind not in FrameKind.__members__.values():
                raise ValueError("the other side sent something that is not a frame")
            if len(self._buffer) < _HEAD.size + length:
                return
            payload = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            yield FrameKind(kind), payload
