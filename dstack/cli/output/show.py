"""All output: results on stdout, everything else on stderr. Plain lines, unless the stream is a terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, TextIO, TypeVar

import click

from dstack.cli.output.screen import SCREEN, colour, room, terminal
from dstack.cli.output.tables import lay_out
from dstack.cli.output.wrap import paragraph, wrap

T = TypeVar("T")

STYLES = {
    **dict.fromkeys(("done", "ready"), "green"),
    **dict.fromkeys(("running", "preparing", "uploading"), "cyan"),
    **dict.fromkeys(("failed", "lost", "unusable"), "red"),
    **dict.fromkeys(("unreachable", "stopped", "drained"), "yellow"),
}
REORDERING = (0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
"""Characters that change the direction of text (UAX #9), or break the line."""
CONTROL = dict.fromkeys(
    (*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0), *REORDERING), "\N{REPLACEMENT CHARACTER}"
)


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


def interactive() -> bool:
    """Whether the command can ask the user."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def clean(text: str) -> str:
    """Replace control characters, which could change the terminal or what a line seems to say: the text may come from a
    host."""
    return text.translate(CONTROL)


def paint(text: str, style: str | None, stream: TextIO) -> str:
    """Return the text in a colour, if the stream takes colours."""
    return click.style(text, fg=style) if style and colour(stream) else text


def say(text: str, *, style: str | None = None) -> None:
    """Print a line on stderr. On a terminal, a long one is broken between words."""
    shown = clean(text)
    if terminal(sys.stderr):
        shown = paragraph(shown, room(sys.stderr))
    SCREEN.print(paint(shown, style, sys.stderr), sys.stderr)


def raw_line(text: str) -> None:
    """Print a line on stderr whose control characters are dstack's own."""
    SCREEN.print(text, sys.stderr)


def out() -> BinaryIO:
    """Return stdout as a byte stream. The caller flushes it."""
    sys.stdout.flush()
    return sys.stdout.buffer


def line(text: str) -> None:
    """Print a line on stdout."""
    SCREEN.print(text, sys.stdout)


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
    with SCREEN.above():
        print(clean(question), end=" ", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower()


def confirm(question: str) -> bool:
    """Ask the user a yes-or-no question. The default is no."""
    return ask(f"{question} [y/N]") in ("y", "yes")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, spare: Sequence[str] = ()) -> None:
    """Print a table on stdout, one line for each row. A terminal gets colours, and what fits its width: the columns in
    `spare` are the first that it does without. Elsewhere, nothing is cut."""
    for text in table_lines(columns, rows, sys.stdout, spare):
        line(text)


def table_lines(
    columns: Sequence[str], rows: Iterable[Sequence[str]], stream: TextIO, spare: Sequence[str] = ()
) -> list[str]:
    """Return the lines of a table for the stream."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    head, *rest = lay_out(columns, cells, room(stream) if terminal(stream) else None, spare)
    lines = ["  ".join(paint(cell, STYLES.get(cell.strip()), stream) for cell in row).rstrip() for row in rest]
    title = "  ".join(head).rstrip()
    return [click.style(title, bold=True) if colour(stream) else title, *lines]


def list_table(
    items: Sequence[T],
    columns: Sequence[str],
    row: Callable[[T], Sequence[str]],
    none: str,
    *,
    as_json: bool,
    spare: Sequence[str] = (),
) -> None:
    """Print a list as JSON, or as a table with a `row` for each item. If it is empty, print the sentence `none`."""
    if as_json:
        document(items)
    elif items:
        table(columns, map(row, items), spare=spare)
    else:
        say(none)


def watch(draw: Callable[[], bool], *, as_json: bool, pause: float = 2.0) -> None:
    """Draw again and again, in place on a terminal, until `draw` returns False or the user presses Ctrl-C. JSON is
    printed as one document each time."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            with contextlib.nullcontext() if as_json else SCREEN.page():
                more = draw()
            if not more:
                break
            time.sleep(pause)
    SCREEN.close()


def fields(pairs: Iterable[tuple[str, str | None]]) -> None:
    """Print `name  value` lines on stdout, leaving out None. A terminal gets long values in several lines."""
    present = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in present), default=0) + 2
    for name, value in present:
        rows = clean(value).split("\n")
        if terminal(sys.stdout):
            rows = [part for row in rows for part in wrap(row, room(sys.stdout) - width) or [""]]
        text = paint(("\n" + " " * width).join(rows), STYLES.get(value), sys.stdout)
        line(f"{name.ljust(width)}{text}")


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
