"""A window of a job's log: however long the log is, no more than this is read at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from dstack.model.job.log_mask import mask, reach, unfinished
from dstack.model.text.units import rfc3339
from dstack.server.web.log.terminal import lines_as_html
from dstack.store.logs import Logs

WINDOW = 64 * 1024
"""Bytes of a window."""


@dataclass(frozen=True)
class LogSource:
    """Whose log is read. `secrets` are masked; `ended`: nothing will be added to it."""

    logs: Logs
    job: str
    secrets: Sequence[bytes]
    ended: bool

    @property
    def size(self) -> int:
        """The bytes that may be shown: those that may begin a secret wait for the rest of it."""
        size = self.logs.size(self.job)
        if self.ended or not self.secrets:
            return size
        far = reach(self.secrets)
        return size - unfinished(self.logs.read(self.job, max(0, size - far), far), self.secrets)

    def read(self, start: int, end: int) -> bytes:
        """Return these bytes, with secrets masked."""
        data = self.logs.read(self.job, start, max(0, end - start))
        if not self.secrets:
            return data
        far = reach(self.secrets)
        before = self.logs.read(self.job, max(0, start - far), min(far, start))
        return mask(before, data, self.logs.read(self.job, start + len(data), far), self.secrets)


@dataclass(frozen=True)
class LogLine:
    """A line that begins at byte `at`, and when it arrived (RFC 3339), "" if that is unknown."""

    at: int
    time: str
    text: Markup


@dataclass(frozen=True)
class LogWindow:
    """The lines of the bytes from `start` to `end` of a log of `size` bytes. `last` is where a line begins that has no
    newline yet, and may still grow."""

    lines: list[LogLine]
    start: int
    end: int
    size: int
    last: int

    @property
    def before(self) -> int:
        """Where the window before this one starts."""
        return max(0, self.start - WINDOW)


def window_at(source: LogSource, at: int) -> LogWindow:
    """Return the window that begins with the line at byte `at`."""
    size = source.size
    return cut(source, max(0, min(at, size)), size)


def window_before(source: LogSource, end: int) -> LogWindow:
    """Return the window that ends at byte `end`, or at the end of the log."""
    size = source.size
    end = max(0, min(end, size))
    start = max(0, end - WINDOW)
    if start:  # begin with a whole line, if one begins here
        newline = source.read(start - 1, end).find(b"\n", 0, -1)
        start += max(0, newline)
    return cut(source, start, size)


def cut(source: LogSource, start: int, size: int) -> LogWindow:
    """Return the window from `start` on. It ends with a whole line, if one ends in it."""
    data = source.read(start, min(size, start + WINDOW))
    if start + len(data) < size:
        newline = data.rfind(b"\n")
        data = data[: newline + 1] if newline >= 0 else whole_characters(data)
    pieces = data.split(b"\n")
    offsets = [start]
    for piece in pieces[:-1]:
        offsets.append(offsets[-1] + len(piece) + 1)
    last = offsets[-1]
    if not pieces[-1]:
        pieces, offsets = pieces[:-1], offsets[:-1]
    texts = lines_as_html([piece.decode(errors="replace") for piece in pieces])
    times = source.logs.arrivals(source.job, start, start + len(data))
    lines = [LogLine(at, time_at(times, at), text) for at, text in zip(offsets, texts, strict=True)]
    return LogWindow(lines, start, start + len(data), size, last)


def whole_characters(data: bytes) -> bytes:
    """Return the data without the first bytes of a character at its end (RFC 3629)."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:
            return data[:-back] if data[-back] >= 0xC0 else data
    return data


def time_at(times: list[tuple[int, float]], at: int) -> str:
    """Return when the byte at an offset arrived."""
    found = bisect_right(times, at, key=lambda record: record[0])
    return rfc3339(times[found - 1][1]) if found else ""
