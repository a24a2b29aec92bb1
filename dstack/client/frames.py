"""Reads a follow stream: each frame is one line of JSON, followed by the raw bytes of a log."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from dstack.model.api import wire
from dstack.model.api.runs import Event

BLOCK = 1 << 16


class ByteSource(Protocol):
    """What is used of `http.client.HTTPResponse`. `read1` returns b"" at the end, and raises if the stream breaks."""

    def read1(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Frame:
    """One frame. `data` holds the raw bytes of a `log` event."""

    event: Event
    data: bytes = b""

    def after(self, offsets: Mapping[str, int]) -> Frame | None:
        """Return the part of the frame beyond `offsets` (bytes by job id), or None if there is none."""
        event = self.event
        if event.event != "log" or event.id is None or event.offset is None:
            return self
        overlap = offsets.get(event.id, 0) - event.offset
        if overlap <= 0:
            return self
        rest = self.data[overlap:]
        return Frame(event_from(event, event.offset + overlap, len(rest)), rest) if rest else None


def event_from(event: Event, offset: int, size: int) -> Event:
    """Return the same log event for a later part of its bytes."""
    return Event(event="log", id=event.id, workflow=event.workflow, offset=offset, bytes=size, time=event.time)


def read_frames(source: ByteSource) -> Iterator[Frame]:
    """Yield complete frames. Raises http.client.IncompleteRead if the stream ends within a frame."""
    buffer = bytearray()
    while True:
        end = buffer.find(b"\n")
        while end < 0:
            before = len(buffer)
            if not _read(source, buffer):
                return
            end = buffer.find(b"\n", before)
        event = wire.decode(bytes(buffer[:end]), Event)
        del buffer[: end + 1]
        size = event.bytes or 0
        while len(buffer) < size:
            if not _read(source, buffer):
                raise http.client.IncompleteRead(bytes(buffer), size - len(buffer))
        yield Frame(event, bytes(buffer[:size]))
        del buffer[:size]


def _read(source: ByteSource, buffer: bytearray) -> bool:
    """Read a block; return False at the end. Raises http.client.IncompleteRead if the end is within a frame."""
    block = source.read1(BLOCK)
    buffer += block
    if not block and buffer:
        raise http.client.IncompleteRead(bytes(buffer))
    return bool(block)
