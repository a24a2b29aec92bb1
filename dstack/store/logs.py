"""What jobs leave over time: their logs and their resource usage.

A log is a file of raw bytes, whose size is the next offset, with an index of arrival times next to it.
"""

from __future__ import annotations

import os
import struct
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from io import FileIO
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO

import msgspec

from dstack.errors import server_trouble
from dstack.model.paths import ServerLayout
from dstack.model.runner.metrics import Point
from dstack.model.text.units import rfc3339
from dstack.plumbing.disk import sync
from dstack.plumbing.space import require

RECORD = struct.Struct("<Qd")
"""An offset in bytes, and the arrival time, in seconds since the epoch, of the bytes from there on."""
RESOLUTION = 0.1
"""Arrivals within this many seconds share one record."""
LAST = 0.5
"""The share of the disk's reserve that logs leave to the state."""


class Logs:
    """The logs and the resource usage of all jobs."""

    def __init__(self, layout: ServerLayout) -> None:
        self.layout = layout
        self.last: dict[str, float] = {}

    def size(self, job: str) -> int:
        """Return how many bytes have arrived."""
        path = self.layout.log(job)
        return path.stat().st_size if path.exists() else 0

    def begin(self, job: str) -> None:
        """Make the log: it shows that the job's commands began, even to a record from before that."""
        with suppress(OSError):  # what they write makes it, too
            self.layout.log(job).touch(0o600)

    def begun(self, job: str, attempt: int, start: int) -> bool:
        """Whether there is a log of the attempt whose first byte is at `start`. An empty one is the first attempt's."""
        return self.size(job) > start or (attempt == 1 and start == 0 and self.layout.log(job).exists())

    def append(self, job: str, data: bytes) -> None:
        """Append bytes. Raises DiskFullError if they don't fit, without a part of them."""
        now = time.time()
        if job not in self.last:
            self._drop_unarrived(job)
        if now - self.last.get(job, 0) >= RESOLUTION:
            append(self._times(job), RECORD.pack(self.size(job), now), RECORD.size)
            self.last[job] = now
        append(self.layout.log(job), data)

    def sync(self, job: str) -> None:
        """Write all that is known of a job here to disk."""
        for path in (self.layout.log(job), self._times(job), self.layout.metrics(job)):
            with suppress(FileNotFoundError):
                sync(path)
        sync(self.layout.logs)

    def read(self, job: str, offset: int, limit: int) -> bytes:
        """Return at most `limit` bytes from `offset` on."""
        path = self.layout.log(job)
        if not path.exists():
            return b""
        with path.open("rb") as log:
            log.seek(offset)
            return log.read(limit)

    def arrival(self, job: str, offset: int) -> tuple[float, int | None]:
        """Return when the byte at `offset` arrived (seconds since the epoch, 0 if unknown), and the next offset with a
        later arrival, or None."""
        if not self._times(job).exists():
            return 0.0, None
        with self._times(job).open("rb") as index:
            records = Records(index)
            later = bisect_right(records, offset, key=itemgetter(0))
            at = records[later - 1][1] if later else 0.0
            return at, records[later][0] if later < len(records) else None

    def begins(self, job: str, since: float) -> int:
        """Return the offset of the first byte that arrived at `since` (seconds since the epoch) or later."""
        if not self._times(job).exists():
            return 0
        with self._times(job).open("rb") as index:
            records = Records(index)
            first = bisect_left(records, since, key=itemgetter(1))
            return records[first][0] if first < len(records) else self.size(job)

    def add_usage(self, job: str, point: Point) -> None:
        """Append a sample of resource usage, as a line of JSON in the job's own file."""
        append(self.layout.metrics(job), msgspec.json.encode(point) + b"\n")

    def usage(self, job: str) -> list[Point]:
        """Return all samples of a job, in order. A line that a crash or a full disk left incomplete is skipped."""
        path = self.layout.metrics(job)
        points = []
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with suppress(msgspec.DecodeError):
                points.append(msgspec.json.decode(line, type=Point))
        return points

    def remove(self, job: str) -> None:
        """Remove a job's log and metrics."""
        self.last.pop(job, None)
        for path in (self.layout.log(job), self._times(job), self.layout.metrics(job)):
            path.unlink(missing_ok=True)

    def _drop_unarrived(self, job: str) -> None:
        """Drop the arrivals of bytes that were lost in a crash: they arrive again."""
        if self._times(job).exists():
            with self._times(job).open("r+b") as index:
                index.truncate(RECORD.size * bisect_left(Records(index), self.size(job), key=itemgetter(0)))

    def _times(self, job: str) -> Path:
        return self.layout.log(job).with_suffix(".times")


def append(path: Path, data: bytes, unit: int = 1) -> None:
    """Append bytes to a file of records of `unit` bytes, or nothing of them. What is not a whole record at its end, as
    after a crash, is cut off first. Raises ServerTroubleError, such as for a full disk."""
    try:
        require(path.parent, len(data), share=LAST)
        with path.open("ab", buffering=0) as file:
            begin = file.tell() - file.tell() % unit
            if begin != file.tell():
                file.truncate(begin)
            try:
                write(file, data)
            except OSError:
                file.truncate(begin)
                raise
    except OSError as error:
        known = server_trouble(error)
        if known is None:
            raise
        raise known from error


def write(file: FileIO, data: bytes) -> None:
    """Write all of it: one call may write a part."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


class Records:
    """The offsets and times in an open index file, read one at a time because a long log has very many."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.total = file.seek(0, os.SEEK_END) // RECORD.size

    def __len__(self) -> int:
        return self.total

    def __getitem__(self, number: int) -> tuple[int, float]:
        self.file.seek(number * RECORD.size)
        offset, at = RECORD.unpack(self.file.read(RECORD.size))
        return offset, at


def chunks(logs: Logs, job: str, offset: int, size: int) -> Iterator[tuple[int, str, bytes]]:
    """Yield the log from `offset` on, as (offset, RFC 3339 time of arrival, at most `size` bytes)."""
    end = logs.size(job)
    while offset < end:
        at, later = logs.arrival(job, offset)
        data = logs.read(job, offset, min(size, min(later or end, end) - offset))
        yield offset, rfc3339(at), data
        offset += len(data)
