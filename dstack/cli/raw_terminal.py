"""The user's terminal while a program elsewhere has it."""

from __future__ import annotations

import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dstack.model.api.streams import TerminalView

ENDINGS = (signal.SIGTERM, signal.SIGHUP)


def terminal_size() -> tuple[int, int]:
    """Return the columns and rows."""
    size = os.get_terminal_size(sys.stdin.fileno())
    return size.columns, size.lines


def own_terminal() -> TerminalView | None:
    """Return the terminal that the user sits at; None unless stdin and stdout are both one."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    columns, rows = terminal_size()
    return TerminalView(columns, rows, os.environ.get("TERM") or "xterm")


@contextmanager
def lent_terminal() -> Iterator[int]:
    """Pass every key on as it is, and put the terminal back at the end, also of a command that is told to end. Yields a
    descriptor from which a byte can be read after each change of the size."""
    before = termios.tcgetattr(sys.stdin.fileno())
    resized, wake = os.pipe()
    for end in (resized, wake):
        os.set_blocking(end, False)
    handlers = {number: signal.signal(number, _leave) for number in ENDINGS}
    handlers[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
    waking = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        tty.setraw(sys.stdin.fileno())
        yield resized
    finally:
        termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, before)
        signal.set_wakeup_fd(waking)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(resized)
        os.close(wake)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
