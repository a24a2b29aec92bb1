"""Prints logs: byte for byte for one job, line by line when lines are prefixed or filtered."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from dstack.cli.follow import Display
from dstack.cli.output import show
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event

LONGEST = 1 << 16
"""A line longer than this, in bytes, is printed in pieces."""
COLOURS = ("cyan", "green", "yellow", "magenta", "blue")


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
            last = self._open.get(job)
            if self.raw and last:
                self._put(last.text)
        self._kept.clear()
        if self.raw:
            self._open.clear()

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
