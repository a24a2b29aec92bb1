"""Prints logs: of one job byte for byte, of several line by line with a label."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from dstack.cli.output import cells, log_text, show
from dstack.cli.output.displays import Display
from dstack.cli.output.screen import SCREEN, terminal
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event
from dstack.model.text.units import seconds

LONGEST = 1 << 16
"""A line longer than this, in bytes, is printed in pieces."""
SPARSE = 10.0
"""Seconds between two lines about a line that a job writes again and again, such as a progress bar, in a file."""
COLOURS = ("cyan", "green", "yellow", "magenta", "blue")
LINES = re.compile(rb"[^\n]*\n|[^\n]+")
STATES = re.compile(rb"[^\r\n]*(?:\r?\n|\r(?=[^\n]))|[^\r\n]+\r?|\r")
"""Lines, each text that another one overwrites included."""


@dataclass
class JobLog:
    """What is remembered of a job's log: its label, the lines that `tail` holds back, and its unfinished last line with
    the colours in force where it begins. `began` is the arrival of the line's first byte, `printed` when it was last
    printed."""

    label: bytes
    kept: deque[bytes]
    text: bytes = b""
    colours: str = ""
    began: str | None = None
    printed: str | None = None

    @property
    def line(self) -> str:
        return self.text.decode("utf-8", "surrogateescape")


class LogWriter(Display):
    """Prints only logs. Several jobs have their `labels` (by job id) before the lines, and a line that overwrites
    itself is printed as a terminal shows it. With `tail`, the last lines of each job are held back until `release()`,
    and earlier ones are dropped."""

    def __init__(
        self,
        labels: Mapping[str, str] | None = None,
        *,
        timestamps: bool = False,
        pattern: re.Pattern[bytes] | None = None,
        tail: int | None = None,
    ) -> None:
        self._labels = _painted(labels or {}) if len(labels or {}) > 1 else {}
        self._timestamps = timestamps
        self._pattern = pattern
        self._tail = tail
        self._logs: dict[str, JobLog] = {}
        self.any = False
        """Whether a log had any byte."""

    @property
    def raw(self) -> bool:
        """Whether bytes are printed unchanged."""
        return not (self._marked or self._pattern or self._tail is not None)

    @property
    def _marked(self) -> bool:
        """Whether something is printed before each line."""
        return bool(self._labels) or self._timestamps

    def log(self, event: Event, data: bytes) -> None:
        self.any = True
        if self.raw:
            SCREEN.log(data)
            return
        log, lines = self._log(event.id or ""), list[bytes]()
        log.began = log.began if log.text else event.time
        log.printed = log.printed if log.text else event.time
        *complete, rest = self._pieces(log.text + data)
        for log.text in complete:
            lines += self._lines(log)
            log.began = log.printed = event.time
        log.text = rest
        self._keep_or_put(log, lines)
        self._show_open(event.id or "", log, event.time)

    def job(self, job: JobView) -> None:
        if job.status.finished:
            self.finish(job.id, job.workflow)

    def finish(self, job: str, workflow: str) -> None:
        """Print the unfinished last line of a log that ended. A line with a label gets a newline."""
        log = self._log(job)
        if log.text:
            SCREEN.open(job, "")
            self._keep_or_put(log, [text if self._labels else text[:-1] for text in self._lines(log)])
            log.text = b""

    def close(self) -> None:
        for job in list(self._logs):
            self.finish(job, "")

    def release(self) -> None:
        """Print the lines that `tail` held back, and everything from now on."""
        self._tail = None
        for log in self._logs.values():
            SCREEN.log(b"".join(log.kept))
            log.kept.clear()
            if self.raw:
                SCREEN.log(log.text)
                log.text = b""

    def _log(self, job: str) -> JobLog:
        if job not in self._logs:
            self._logs[job] = JobLog(self._labels.get(job, b""), deque(maxlen=self._tail))
        return self._logs[job]

    def _pieces(self, data: bytes) -> list[bytes]:
        """Return the complete lines and, last, the unfinished one. With a pattern, each text that is overwritten is a
        line."""
        pieces: list[bytes] = (STATES if self._pattern else LINES).findall(data)
        if not pieces or pieces[-1].endswith(b"\n") or len(pieces[-1]) > LONGEST:
            pieces.append(b"")
        return pieces

    def _keep_or_put(self, log: JobLog, lines: list[bytes]) -> None:
        if self._tail is not None:
            log.kept.extend(lines)
        elif lines:
            SCREEN.log(b"".join(lines))

    def _lines(self, log: JobLog) -> list[bytes]:
        """Return the job's current line as it is printed, or nothing if the pattern does not match."""
        if self._pattern:
            if not log.text.endswith(b"\n"):
                log.text = log.text.removesuffix(b"\r")
            if not log.text or not self._pattern.search(log.text.removesuffix(b"\n")):
                return []
        shown = self._shown(log)
        log.colours = log_text.colours(log.line, log.colours)
        return [shown + b"\n"]

    def _shown(self, log: JobLog) -> bytes:
        """Return the job's current line without its end, and with what belongs before it."""
        if not self._marked:
            return log.text.removesuffix(b"\n")
        line = log.line.removesuffix("\n")
        end = "\r" if line.endswith("\r") and log.text.endswith(b"\n") else ""
        text = log_text.shown(line, log.colours) + end
        stamp = f"{log.began} ".encode() if self._timestamps and log.began else b""
        return log.label + stamp + text.encode("utf-8", "surrogateescape")

    def _show_open(self, job: str, log: JobLog, now: str | None) -> None:
        """Show an unfinished line: on a terminal, paint it over; in a file, print now and then how far a line has come
        that overwrites itself."""
        if not self._marked or self._pattern or self._tail is not None:
            return
        line, log.colours = log_text.newest(log.line, log.colours)
        log.text = line.encode("utf-8", "surrogateescape")
        if terminal(sys.stdout):
            shown = self._shown(log) if line else b""
            SCREEN.open(job, shown.decode(errors="replace"))
        elif now and log.printed and "\r" in line.rstrip("\r") and seconds(now) - seconds(log.printed) >= SPARSE:
            SCREEN.log(self._shown(log) + b"\n")
            log.printed = now


def _painted(labels: Mapping[str, str]) -> dict[str, bytes]:
    """Return what is put before the lines of each job, such as `train | `; aligned and coloured on a terminal."""
    names = list(dict.fromkeys(labels.values()))
    width = max(map(cells.width, names)) if terminal(sys.stdout) else 0
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    return {
        job: show.paint(f"{cells.pad(show.clean(name), width)} |", colours[name], sys.stdout).encode() + b" "
        for job, name in labels.items()
    }
