"""A follow stream as its reader sees it: one line of JSON a frame, and the raw bytes of a log after it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from dstack.model import wire
from dstack.model.api.runs import Event

BLOCK = 1 << 16


class Source(Protocol):
    """What `http.client.HTTPResponse` offers: `read1` gives b"" at the proper end, and raises when it breaks."""

    def read1(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Frame:
    """One frame; `data` are the raw bytes of a `log` event."""

    event: Event
    data: bytes = b""

    def after(self, offsets: Mapping[str, int]) -> Frame | None:
        """The part of it that is beyond `offsets` (bytes by job id), or None."""
        event = self.event
        if event.event != "log" or event.id is None or event.offset is None:
            return self
        known = offsets.get(event.id, 0) - event.offset
        if known <= 0:
            return self
        rest = self.data[known:]
        return Frame(event_from(event, event.offset + known, len(rest)), rest) if rest else None


def event_from(event: Event, offset: int, size: int) -> Event:
    """The same log event for a later part of its bytes."""
    return Event(event="log", id=event.id, workflow=event.workflow, offset=offset, bytes=size, time=event.time)


def read_frames(source: Source) -> Iterator[Frame]:
    """Whole frames only. Raises http.client.IncompleteRead when the stream ends within one."""
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


def _read(source: Source, buffer: bytearray) -> bool:
    """Whether there was more; an end in the middle of a line raises."""
    block = source.read1(BLOCK)
    buffer += block
    if not block and buffer:
        raise http.client.IncompleteRead(bytes(buffer))
    return bool(block)
