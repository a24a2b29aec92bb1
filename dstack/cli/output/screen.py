"""The terminal, which one object owns: logs and dstack's own lines scroll above a block of rows that is painted over.

Nothing is painted on a stream that is not a terminal.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from dstack.cli.output import cells, log_text

FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
"""The wheel before the status line turns, so that a person sees that the command is alive."""
TURN_SECONDS = 0.15
SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"
CUT_CODE = re.compile(rb"\x1b(\[[0-9:;?]{0,30})?$")
"""A code at the end of a log's bytes, the rest of which has not arrived yet."""


def terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal. TERM=dumb counts as a file."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def colour(stream: TextIO) -> bool:
    """Whether to use colours (no-color.org)."""
    return terminal(stream) and not os.environ.get("NO_COLOR")


def size(stream: TextIO) -> tuple[int, int]:
    """Return the columns and lines of a terminal. The variable COLUMNS wins, as it does for other programs."""
    try:
        columns, lines = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        columns = lines = 0
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() and int(given) else columns or 80, lines or 24


def room(stream: TextIO) -> int:
    """Return how many cells of a line are used: some terminals wrap a line that fills the last one."""
    return max(size(stream)[0] - 1, 1)


class Block:
    """Rows at the cursor that are painted over. No row is wrapped."""

    def __init__(self) -> None:
        self._widths: list[int] = []

    def paint(self, stream: TextIO, rows: list[str]) -> None:
        """Show these rows instead of the last ones."""
        lines = max(size(stream)[1], 3)
        if len(rows) >= lines:
            rows = [*rows[: lines - 2], f"{cells.ELLIPSIS} and {len(rows) - lines + 2} more"]
        rows = [cells.cut(cells.plain(row, stream.encoding or "ascii"), room(stream)) for row in rows]
        rows[-1:] = [cells.cut(row, max(room(stream) - len("^C"), 1)) for row in rows[-1:]]
        stream.write(cells.RESET + self._to_top(stream) + "\x1b[K\n".join(rows) + "\x1b[K\x1b[J")
        stream.flush()
        self._widths = [cells.width(row) for row in rows]

    def erase(self, stream: TextIO) -> None:
        """Leave the cursor where the first row was."""
        if self._widths:
            stream.write(self._to_top(stream) + "\x1b[J")
            stream.flush()
            self._widths = []

    def leave(self, stream: TextIO) -> None:
        """Keep the rows as they are, and go to the line below."""
        if self._widths:
            stream.write("\n")
            stream.flush()
            self._widths = []

    def forget(self) -> None:
        """Paint the next rows at the cursor, wherever it is."""
        self._widths = []

    def _to_top(self, stream: TextIO) -> str:
        """Move to the first row. A terminal that became narrower has wrapped the rows."""
        columns = size(stream)[0]
        up = sum(max(1, -(-width // columns)) for width in self._widths) - 1
        return "\r" + (f"\x1b[{up}A" if up > 0 else "")


class Screen:
    """What a person sees: what has happened, and below it the open lines of logs and the status line."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._block = Block()
        self._open: dict[str, str] = {}
        self._status = ""
        self._frame = 0
        self._ticker: threading.Thread | None = None
        self._stop = threading.Event()
        self._mid_line = False
        self._colours = ""
        self._suspended = False
        self._cut_code = b""
        self._cursor_hidden = False
        self._page: list[str] | None = None

    @property
    def shared(self) -> bool:
        """Whether logs and dstack's own lines are on the same terminal."""
        return terminal(sys.stdout) and terminal(sys.stderr)

    def log(self, data: bytes) -> None:
        """Print bytes of a log on stdout."""
        with self._lock:
            if not data or not terminal(sys.stdout):
                _write(data)
                return
            self._erase()
            _write(self._colours.encode() + data if self._suspended else data)
            self._suspended = False
            self._note(data)
            self._paint()

    def _note(self, data: bytes) -> None:
        """Remember the state in which the log leaves the terminal."""
        self._mid_line = not data.endswith(b"\n")
        data = self._cut_code + data
        self._colours = log_text.colours(data.decode(errors="replace"), self._colours)
        if HIDE_CURSOR in data or SHOW_CURSOR in data:
            self._cursor_hidden = data.rfind(HIDE_CURSOR) > data.rfind(SHOW_CURSOR)
        begun = CUT_CODE.search(data)
        self._cut_code = begun.group() if begun else b""

    def open(self, job: str, text: str) -> None:
        """Show the job's unfinished line, which is painted over as it changes; "" for none."""
        with self._lock:
            if text:
                self._open[job] = text
            else:
                self._open.pop(job, None)
            self._paint()

    def status(self, text: str) -> None:
        """Show the status line, or change it; "" removes it."""
        with self._lock:
            self._status = text if terminal(sys.stderr) else ""
            self._paint()
            if self._status and self._ticker is None:
                self._stop.clear()
                self._ticker = threading.Thread(target=self._turn, daemon=True)
                self._ticker.start()

    @contextmanager
    def above(self) -> Iterator[None]:
        """While entered, the cursor is at the beginning of an empty line above the block, and colours are reset."""
        with self._lock:
            self._erase()
            if self.shared:
                self._end_line()
            try:
                yield
            finally:
                self._paint()

    @contextmanager
    def page(self) -> Iterator[None]:
        """Show what is printed inside at once, in place of the last page. Without a terminal, print it as it comes,
        after an empty line."""
        if not terminal(sys.stdout):
            print(flush=True)
            yield
            return
        self._page = []
        try:
            yield
            with self._lock:
                self._block.paint(sys.stdout, [*self._page, ""])
        finally:
            self._page = None

    def print(self, text: str, stream: TextIO) -> None:
        """Print a line of dstack's own."""
        if self._page is not None:
            self._page += text.split("\n")
            return
        with self.above():
            print(text, file=stream, flush=True)

    def close(self) -> None:
        """Remove the open lines and the status line, keep a page, and end colours. A log's last line stays open."""
        ticker, self._ticker = self._ticker, None
        self._stop.set()
        if ticker is not None:
            ticker.join()
        with self._lock:
            if self._open or self._status:
                self._open, self._status = {}, ""
                self._erase()
            elif terminal(sys.stdout):
                self._block.leave(sys.stdout)
            if self._colours and not self._suspended:
                _write(cells.RESET.encode())
            if self._cursor_hidden:
                _write(SHOW_CURSOR)
            self._colours, self._suspended, self._cursor_hidden = "", False, False

    def resumed(self) -> None:
        """Start anew below what the shell printed while the command was suspended (Ctrl-Z)."""
        with self._lock:
            self._block.forget()
            self._paint()

    def _end_line(self) -> None:
        """End the line that a log left open, and its colours, which it gets back with its next bytes."""
        if self._colours and not self._suspended:
            _write(cells.RESET.encode())
            self._suspended = True
        if self._mid_line:
            _write(b"\n")
            self._mid_line = False

    def _erase(self) -> None:
        if (stream := self._stream()) is not None:
            self._block.erase(stream)

    def _paint(self) -> None:
        stream = self._stream()
        if stream is None or self._page is not None or (self._mid_line and terminal(sys.stdout)):
            return
        wheel = f"{FRAMES[self._frame % len(FRAMES)]} {self._status}"
        rows = [*(self._open.values() if terminal(sys.stdout) else ()), *([wheel] if self._status else ())]
        if rows:
            self._suspended = bool(self._colours)
            self._block.paint(stream, rows)
        else:
            self._block.erase(stream)

    def _stream(self) -> TextIO | None:
        """The terminal to paint on: that of dstack's own lines, if there is one."""
        return next((stream for stream in (sys.stderr, sys.stdout) if terminal(stream)), None)

    def _turn(self) -> None:
        with suppress(OSError, ValueError):  # the terminal went away
            while not self._stop.wait(TURN_SECONDS):
                with self._lock:
                    self._frame += 1
                    if self._status:
                        self._paint()


def _write(data: bytes) -> None:
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


SCREEN = Screen()
