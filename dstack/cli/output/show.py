"""All output: results on stdout, everything else on stderr. Plain lines, unless the stream is a terminal.

Only this module imports rich, and only for a terminal.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, TextIO, TypeVar

import click

T = TypeVar("T")

STYLES = {
    **dict.fromkeys(("done", "ready"), "green"),
    **dict.fromkeys(("running", "preparing", "uploading"), "cyan"),
    **dict.fromkeys(("failed", "lost", "unusable"), "red"),
    **dict.fromkeys(("unreachable", "stopped", "drained"), "yellow"),
}
CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}


STDOUT = "standard output"
"""The name of stdout in errors."""


class Output(io.FileIO):
    """stdout, whose errors name it, or stderr, whose errors are ignored: there is no place left to report them."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if self.fileno() == 2:
                return len(data)
            error.filename = STDOUT
            raise


def prepare() -> None:
    """Make stdout and stderr accept any text. A stream that the caller closed discards its output."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # Take the closed descriptor's number, so that no file or socket gets it.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, open(nowhere, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif type(stream) is io.TextIOWrapper and stream.fileno() in (1, 2):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            errors = "surrogateescape" if utf8 and name == "stdout" else "backslashreplace"
            whole = io.BufferedWriter(Output(stream.fileno(), "w", closefd=False))
            text = io.TextIOWrapper(whole, stream.encoding, errors, line_buffering=stream.line_buffering)
            setattr(sys, name, text)


def leave_closed_output() -> int:
    """Discard all further output if the reader of stdout went away (`| head`) or its disk is full: the interpreter's
    last flush would fail. Return the exit code for a reader that went away."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal. TERM=dumb counts as a file."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def interactive() -> bool:
    """Whether the command can ask the user."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def colour(stream: TextIO) -> bool:
    """Whether to use colours (no-color.org)."""
    return terminal(stream) and not os.environ.get("NO_COLOR")


def clean(text: str) -> str:
    """Replace control characters, which could change the terminal: the text may come from a host."""
    return text.translate(CONTROL)


def paint(text: str, style: str | None, stream: TextIO) -> str:
    """Return the text in a colour, if the stream takes colours."""
    return click.style(text, fg=style) if style and colour(stream) else text


def say(text: str, *, style: str | None = None) -> None:
    """Print a line on stderr."""
    print(paint(clean(text), style, sys.stderr), file=sys.stderr, flush=True)


def out() -> BinaryIO:
    """Return stdout as a byte stream. The caller flushes it."""
    sys.stdout.flush()
    return sys.stdout.buffer


def line(text: str) -> None:
    """Print a line on stdout."""
    print(text, flush=True)


def document(value: Any) -> None:
    """Print one JSON document on stdout: indented on a terminal, else on one line."""
    import msgspec

    from dstack.model.api import wire

    encoded = wire.encode(value)
    write_json(msgspec.json.format(encoded, indent=2) if terminal(sys.stdout) else encoded)


def write_json(encoded: bytes) -> None:
    """Print one line of JSON on stdout."""
    stream = out()
    stream.write(encoded + b"\n")
    stream.flush()


def ask(question: str) -> str:
    """Ask the user and return the answer, or "" at the end of input."""
    print(clean(question), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower()


def confirm(question: str) -> bool:
    """Ask the user a yes-or-no question. The default is no."""
    return ask(f"{question} [y/N]") in ("y", "yes")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns on stdout. On a terminal, use colours and fit its width; elsewhere, cut nothing."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if terminal(sys.stdout):
        _rich_table(columns, cells)
        return
    everything = [list(columns), *cells]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    for row in everything:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def list_table(
    items: Sequence[T], columns: Sequence[str], row: Callable[[T], Sequence[str]], none: str, *, as_json: bool
) -> None:
    """Print a list as JSON, or as a table with a `row` for each item. If it is empty, print the sentence `none`."""
    if as_json:
        document(items)
    elif items:
        table(columns, map(row, items))
    else:
        say(none)


def clear() -> None:
    """Clear the terminal's screen, or print an empty line elsewhere."""
    line("\x1b[H\x1b[2J" if terminal(sys.stdout) else "")


def fields(pairs: Iterable[tuple[str, str | None]]) -> None:
    """Print `name  value` lines on stdout, leaving out None."""
    present = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        text = clean(value).replace("\n", "\n" + " " * (width + 2))
        line(f"{name.ljust(width)}  {paint(text, STYLES.get(value), sys.stdout)}")


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold" if colour(sys.stdout) else "")
    for index, name in enumerate(columns):
        shown.add_column(name, no_wrap=index == 0, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console = Console(highlight=False, markup=False, emoji=False, no_color=not colour(sys.stdout))
    with console.capture() as captured:
        console.print(shown)
    for text in captured.get().splitlines():
        line(text.rstrip())


class Spinner:
    """The status line on stderr. Without a terminal, it shows nothing."""

    def __init__(self) -> None:
        self._status: Any = None

    def show(self, text: str) -> None:
        """Show the text, or change it."""
        if not terminal(sys.stderr):
            return
        from rich.console import Console
        from rich.text import Text

        status = Text(clean(text), no_wrap=True, overflow="ellipsis")
        if self._status is None:
            console = Console(stderr=True, highlight=False, markup=False, no_color=not colour(sys.stderr))
            self._status = console.status(status)
            self._status.start()
        else:
            self._status.update(status)

    def hide(self) -> None:
        """Remove the status line."""
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Any]:
    """Show a progress bar for `total` bytes on a terminal. Yields a function to call with each number of new bytes."""
    if not terminal(sys.stderr):
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, no_color=not colour(sys.stderr))
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task(clean(label), total=total)
        yield lambda count: bar.advance(task, count)
