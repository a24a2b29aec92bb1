"""A pseudo-terminal for programs that behave differently on one."""

from __future__ import annotations

import fcntl
import io
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyte

OWN = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Makes the terminal the one whose Ctrl-C is the program's."""
SECONDS = 60.0
Typed = str | Callable[[], str]
"""What is typed, or what happens then and says what is typed."""


def type_into(
    words: Sequence[str],
    steps: Sequence[tuple[str, Typed]],
    *,
    cwd: Path,
    environment: dict[str, str],
    columns: int = 80,
    seconds: float = SECONDS,
) -> tuple[str, int]:
    """Run the program. For each step, wait for its first text, then type its second. Return the output and exit code.
    Raises AssertionError if a text does not appear."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", OWN, *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=cwd,
        env={"TERM": "xterm-256color", **environment},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        shown = _converse(ours, list(steps), seconds)
        return shown, process.wait(seconds)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _converse(terminal: int, steps: list[tuple[str, Typed]], seconds: float) -> str:
    shown, seen = b"", 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if steps and steps[0][0].encode() in shown[seen:]:
            seen = len(shown)
            typed = steps.pop(0)[1]
            os.write(terminal, (typed if isinstance(typed, str) else typed()).encode())
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break  # The program has ended.
    assert not steps, f"{steps[0][0]!r} never came: {shown.decode()!r}"
    return shown.decode()


def looks(shown: str | bytes, columns: int = 80, rows: int = 24) -> list[str]:
    """Return the lines that a terminal of this size shows after this output, those that scrolled away included."""
    screen = pyte.HistoryScreen(columns, rows, history=10_000)
    screen.set_mode(pyte.modes.LNM)  # "\n" begins a line, as it does behind a terminal's driver
    pyte.ByteStream(screen).feed(shown if isinstance(shown, bytes) else shown.encode())
    scrolled = ["".join(line[column].data for column in range(columns)) for line in screen.history.top]
    return "\n".join(line.rstrip() for line in [*scrolled, *screen.display]).rstrip("\n").split("\n")


class Tty(io.TextIOWrapper):
    """A stream that is a terminal, as far as a program can see. What is written goes to `seen`."""

    def __init__(self, seen: io.BytesIO) -> None:
        super().__init__(seen, encoding="utf-8", errors="surrogateescape", write_through=True)

    def isatty(self) -> bool:
        return True
