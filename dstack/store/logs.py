"""Job logs: raw bytes in a file whose size is the offset, and beside it when they arrived."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from datetime import datetime, timezone

from dstack.model.paths import ServerLayout

RECORD = struct.Struct("<Qd")
"""An offset in bytes, and the time in seconds since the epoch at which the bytes from there on arrived."""
RESOLUTION = 0.1
"""Seconds: arrivals that are closer together share one record."""


class Logs:
    """The logs of all jobs."""

    def __init__(self, layout: ServerLayout) -> None:
        self.layout = layout
        self.last: dict[str, float] = {}

    def size(self, job: str) -> int:
        """How many bytes have arrived."""
        path = self.layout.log(job)
        return path.stat().st_size if path.exists() else 0

    def append(self, job: str, data: bytes) -> None:
        """Add bytes that follow those that are there."""
        path = self.layout.log(job)
        now = time.time()
        if now - self.last.get(job, 0) >= RESOLUTION:
            self.last[job] = now
            with path.with_suffix(".times").open("ab") as index:
                index.write(RECORD.pack(self.size(job), now))
        with path.open("ab") as log:
            log.write(data)

    def read(self, job: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on."""
        path = self.layout.log(job)
        if not path.exists():
            return b""
        with path.open("rb") as log:
            log.seek(offset)
            return log.read(limit)

    def arrivals(self, job: str) -> list[tuple[int, float]]:
        """(offset, time) of each recorded arrival, in order."""
        path = self.layout.log(job).with_suffix(".times")
        if not path.exists():
            return []
        data = path.read_bytes()
        whole = len(data) - len(data) % RECORD.size
        return list(RECORD.iter_unpack(data[:whole]))

    def remove(self, job: str) -> None:
        """Remove a log."""
        self.last.pop(job, None)
        self.layout.log(job).unlink(missing_ok=True)
        self.layout.log(job).with_suffix(".times").unlink(missing_ok=True)


def chunks(logs: Logs, job: str, offset: int, size: int) -> Iterator[tuple[int, str, bytes]]:
    """The log's bytes from `offset` on as (offset, RFC 3339 time of arrival, at most `size` bytes)."""
    arrivals = logs.arrivals(job)
    end = logs.size(job)
    position = 0
    while offset < end:
        while position + 1 < len(arrivals) and arrivals[position + 1][0] <= offset:
            position += 1
        next_arrival = arrivals[position + 1][0] if position + 1 < len(arrivals) else end
        data = logs.read(job, offset, min(size, max(next_arrival - offset, 1)))
        if not data:
            return
        at = arrivals[position][1] if arrivals else 0.0
        yield offset, datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds")[:-6] + "Z", data
        offset += len(data)
