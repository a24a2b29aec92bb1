"""Reads a follow stream: each frame is one line of JSON, followed by the raw bytes of a log."""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase

from msgspec import structs

from dstack.model.api import wire
from dstack.model.api.runs import Event
from dstack.model.api.sweeps import SweepEvent

BLOCK = 1 << 16


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
        return Frame(structs.replace(event, offset=event.offset + overlap, bytes=len(rest)), rest) if rest else None


def read_frames(source: BufferedIOBase) -> Iterator[Frame]:
    """Yield complete frames. Raises http.client.IncompleteRead if the stream ends within a frame."""
    buffer = bytearray()
    while True:
        while (end := buffer.find(b"\n")) < 0:
            if not _read(source, buffer):
                return
        event = wire.decode(bytes(buffer[:end]), Event)
        del buffer[: end + 1]
        size = event.bytes or 0
        while len(buffer) < size:
            if not _read(source, buffer):
                raise http.client.IncompleteRead(bytes(buffer), size - len(buffer))
        yield Frame(event, bytes(buffer[:size]))
        del buffer[:size]


def read_sweep_events(source: BufferedIOBase) -> Iterator[SweepEvent]:
    """Yield the events of a sweep, one in each line. Raises http.client.IncompleteRead if the last one is cut."""
    for line in source:
        if not line.endswith(b"\n"):
            raise http.client.IncompleteRead(line)
        event = wire.decode(line, SweepEvent)
        if event.event != "ping":
            yield event


def _read(source: BufferedIOBase, buffer: bytearray) -> bool:
    """Read a block; return False at the end. Raises http.client.IncompleteRead if the end is within a frame."""
    block = source.read1(BLOCK)
    buffer += block
    if not block and buffer:
        raise http.client.IncompleteRead(bytes(buffer))
    return bool(block)
