"""Displays of a follow stream: logs byte for byte or line by line, JSON lines, or a JSON array of logs."""

from __future__ import annotations

import base64
import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from dstack.cli.output import show
from dstack.model.api import wire
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event, RunView

LONGEST = 1 << 16
"""A line longer than this, in bytes, is printed in pieces."""
COLOURS = ("cyan", "green", "yellow", "magenta", "blue")


class Display:
    """Shows frames. A method that a display leaves out shows nothing."""

    def job(self, job: JobView) -> None:
        """Show a job that changed."""

    def log(self, event: Event, data: bytes) -> None:
        """Show bytes of a log."""

    def finish(self, job: str, workflow: str) -> None:
        """Show what is left of the log of a job that ended."""

    def run(self, run: RunView) -> None:
        """Show the run, which has ended."""

    def close(self) -> None:
        """End what is shown, or interrupt it to ask the user."""


@dataclass
class Open:
    """A job's unfinished last line, and when its first byte arrived."""

    workflow: str
    time: str | None
    text: bytes = b""


class LogWriter(Display):
    """Prints only logs. If there are several `workflows`, their names are put before the lines. With `tail`, the last
    lines of each job are held back until `release()`, and earlier ones are dropped."""

    def __init__(
        self,
        workflows: Sequence[str] = (),
        *,
        timestamps: bool = False,
        pattern: re.Pattern[bytes] | None = None,
        tail: int | None = None,
    ) -> None:
        self._prefixes = _prefixes(workflows) if len(workflows) > 1 else {}
        self._timestamps = timestamps
        self._pattern = pattern
        self._tail = tail
        self._kept: dict[str, deque[bytes]] = {}
        self._open: dict[str, Open] = {}
        self.fresh_line = True

    @property
    def raw(self) -> bool:
        """Whether bytes are printed unchanged."""
        return not (self._prefixes or self._timestamps or self._pattern or self._tail is not None)

    def log(self, event: Event, data: bytes) -> None:
        if self.raw:
            self._put(data)
            return
        job, lines = event.id or "", list[bytes]()
        for piece in re.findall(rb"[^\n]*\n|[^\n]+", data):
            last = self._open.setdefault(job, Open(event.workflow or "", event.time))
            last.text += piece
            if piece.endswith(b"\n") or len(last.text) > LONGEST:
                lines += self._lines(self._open.pop(job))
        self._keep_or_put(job, lines)

    def job(self, job: JobView) -> None:
        if job.status.finished:
            self.finish(job.id, job.workflow)

    def finish(self, job: str, workflow: str) -> None:
        """Print the unfinished last line of a log that ended. A prefixed line gets a newline."""
        if last := self._open.pop(job, None):
            self._keep_or_put(job, [line if self._prefixes else line[:-1] for line in self._lines(last)])

    def close(self) -> None:
        for job, last in list(self._open.items()):
            self.finish(job, last.workflow)

    def release(self) -> None:
        """Print the lines that `tail` held back, and everything from now on."""
        self._tail = None
        for job, lines in self._kept.items():
            self._put(b"".join(lines))
            if self.raw and (last := self._open.pop(job, None)):
                self._put(last.text)
        self._kept.clear()

    def _keep_or_put(self, job: str, lines: list[bytes]) -> None:
        if self._tail is None:
            self._put(b"".join(lines))
        else:
            self._kept.setdefault(job, deque(maxlen=self._tail)).extend(lines)

    def _lines(self, last: Open) -> list[bytes]:
        """Return the line to print, or none if the pattern does not match."""
        text = last.text.removesuffix(b"\n")
        if self._pattern and not self._pattern.search(text):
            return []
        stamp = f"{last.time} ".encode() if self._timestamps and last.time else b""
        return [self._prefixes.get(last.workflow, b"") + stamp + text + b"\n"]

    def _put(self, data: bytes) -> None:
        if data:
            stream = show.out()
            stream.write(data)
            stream.flush()
            self.fresh_line = data.endswith(b"\n")


def _prefixes(workflows: Sequence[str]) -> dict[str, bytes]:
    """Return the prefix for each workflow, such as `train | `; aligned and coloured on a terminal."""
    width = max(map(len, workflows)) if show.terminal(sys.stdout) else 0
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(workflows)}
    return {name: show.paint(f"{name.ljust(width)} |", colours[name], sys.stdout).encode() + b" " for name in workflows}


class JsonEvents(Display):
    """Prints frames. A character that is split between two frames is printed with the second."""

    def __init__(self) -> None:
        self._cut: dict[str, bytes] = {}

    def job(self, job: JobView) -> None:
        _write({"event": "job", **msgspec.to_builtins(job)})

    def run(self, run: RunView) -> None:
        """Print the run: when it is submitted, and as the last line."""
        _write({"event": "run", **msgspec.to_builtins(run)})

    def log(self, event: Event, data: bytes) -> None:
        job = event.id or ""
        held = self._cut.pop(job, b"")
        whole, cut = whole_characters(held + data)
        if cut:
            self._cut[job] = cut
        if whole:
            _write(_log(event, whole, (event.offset or 0) - len(held)))

    def finish(self, job: str, workflow: str) -> None:
        """Print what is left of the job's log, if it ends within a character."""
        if cut := self._cut.pop(job, b""):
            _write({"event": "log", "id": job, "workflow": workflow, **_data(cut)})


class JsonArray(Display):
    """Prints only log events, as one JSON array. Bytes are printed as they were stored."""

    def __init__(self) -> None:
        self._any = False

    def log(self, event: Event, data: bytes) -> None:
        show.out().write(b",\n" if self._any else b"[\n")
        show.out().write(msgspec.json.encode(_log(event, data, event.offset or 0)))
        self._any = True

    def close(self) -> None:
        show.write_json(b"\n]" if self._any else b"[]")


def whole_characters(data: bytes) -> tuple[bytes, bytes]:
    """Split off a UTF-8 character that is incomplete at the end of the data."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return (data[:-back], data[-back:]) if back < length else (data, b"")
        if byte < 0x80:
            break
    return data, b""


def _log(event: Event, data: bytes, offset: int) -> dict[str, Any]:
    """A log event as it is printed, with `data`, or `data_base64` if it is not UTF-8."""
    head = {"event": "log", "id": event.id, "workflow": event.workflow, "offset": offset, "time": event.time}
    return {**head, **_data(data)}


def _data(data: bytes) -> dict[str, str]:
    try:
        return {"data": data.decode()}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(data).decode()}


def _write(value: dict[str, Any]) -> None:
    show.write_json(wire.encode(value))
