"""The server's log: a file that is rotated by size, or stderr; a message in bursts is counted instead of repeated."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

from dstack.model.paths import KEPT_LOGS, ServerLayout

LARGEST = 5_000_000
"""Bytes after which the log begins a new file."""
QUIET = 60.0
"""Seconds in which a message that was logged is counted instead of repeated."""
MOST = 1000
"""How many different messages are remembered at once."""


def set_up(layout: ServerLayout) -> None:
    """Log to the server's log file if stderr is that file, as for a server in the background, else to stderr."""
    handler: logging.Handler = logging.StreamHandler()
    if is_stderr(layout.server_log):
        handler = RotatedLog(layout.server_log)
    bursts = Bursts(handler.handle)
    handler.addFilter(bursts)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler], force=True
    )
    logging.raiseExceptions = False  # a full disk would get a traceback, cut off, for each message that it can't hold
    logging.getLogger("uvicorn.error").addFilter(unremarkable)
    logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it logs every session: 10 kB per minute and host


def unremarkable(record: logging.LogRecord) -> bool:
    """Let all records through but those of requests in progress that the server cancels when it stops: that is no
    error, and their clients try again."""
    cancelled = bool(record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
    return not cancelled and "timeout graceful shutdown exceeded" not in record.getMessage()


def is_stderr(path: Path) -> bool:
    """Whether stderr is this file."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(2))


class RotatedLog(RotatingFileHandler):
    """The log file and its predecessors. stdout and stderr, where Python itself may write, follow it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=LARGEST, backupCount=KEPT_LOGS, encoding="utf-8", errors="backslashreplace")

    def doRollover(self) -> None:  # noqa: N802
        super().doRollover()
        assert self.stream is not None
        for number in (1, 2):
            os.dup2(self.stream.fileno(), number)


@dataclass
class Burst:
    """A message, when it was logged (monotonic, in seconds), and how often it came again since."""

    record: logging.LogRecord
    began: float
    count: int = 0


class Bursts(logging.Filter):
    """Lets a message through once in a while, and says how often it came in between. `tell` logs that."""

    def __init__(self, tell: Callable[[logging.LogRecord], object], now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.tell = tell
        self.now = now
        self.seen: dict[tuple[str, ...], Burst] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "is_summary", False):
            return True
        self.end(self.now() - QUIET)
        key = (record.name, record.getMessage(), repr(record.exc_info[1]) if record.exc_info else "")
        if key in self.seen:
            self.seen[key].count += 1
            return False
        if len(self.seen) >= MOST:
            self.end(self.now())
        self.seen[key] = Burst(record, self.now())
        return True

    def end(self, before: float) -> None:
        """Forget the messages that were logged before this time, and say which of them came again."""
        for key, burst in list(self.seen.items()):
            if burst.began > before:
                return
            del self.seen[key]
            if burst.count:
                said = burst.record
                text = f"{burst.count} more times in {self.now() - burst.began:.0f} s: {said.getMessage().strip()}"
                summary = logging.LogRecord(said.name, said.levelno, said.pathname, said.lineno, text, None, None)
                summary.is_summary = True
                self.tell(summary)
