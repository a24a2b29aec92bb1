"""Everything that people see: stdout for what was asked, stderr for the rest; plain lines unless it is a terminal.

rich is imported here alone, and for a terminal alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

if TYPE_CHECKING:
    from dstack.model.api.artifacts import ArtifactView

STYLES = {
    "done": "green",
    "ready": "green",
    "running": "cyan",
    "preparing": "cyan",
    "uploading": "cyan",
    "failed": "red",
    "lost": "red",
    "unusable": "red",
    "unreachable": "yellow",
    "stopped": "yellow",
    "drained": "yellow",
}
ANSI = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "blue": "34", "magenta": "35"}
CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x0A}


def prepare() -> None:
    """Make stdout and stderr take any text; a stream that the caller closed becomes one that swallows."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            # It takes the number that was closed, so that no file or socket gets it.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, open(nowhere, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if utf8 and name == "stdout" else "backslashreplace")


def leave_closed_output() -> int:
    """The reader of stdout has gone (`| head`): end quietly. Keeps the interpreter's last flush from complaining."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def terminal(stream: TextIO) -> bool:
    """Whether a person looks at it. TERM=dumb gets what a file gets."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def interactive() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def colour(stream: TextIO) -> bool:
    """Whether colours are welcome (no-color.org)."""
    return terminal(stream) and not os.environ.get("NO_COLOR")


def clean(text: str) -> str:
    """The text without what moves a cursor or changes a terminal: it may come from a host."""
    return text.translate(CONTROL)


def paint(text: str, style: str | None, stream: TextIO) -> str:
    """The text in a colour, where colours are welcome."""
    code = ANSI.get(style or "")
    return f"\x1b[{code}m{text}\x1b[0m" if code and colour(stream) else text


def say(text: str, *, style: str | None = None) -> None:
    """A line on stderr."""
    print(paint(clean(text), style, sys.stderr), file=sys.stderr, flush=True)


def out() -> BinaryIO:
    """stdout for bytes; flushed by who writes."""
    sys.stdout.flush()
    return sys.stdout.buffer


def line(text: str) -> None:
    """A line on stdout."""
    print(text, flush=True)


def document(value: Any) -> None:
    """One JSON document on stdout: indented for a person, one line for a program."""
    import msgspec

    from dstack.model import wire

    encoded = wire.encode(value)
    write_json(msgspec.json.format(encoded, indent=2) if terminal(sys.stdout) else encoded)


def write_json(encoded: bytes) -> None:
    """One line of JSON on stdout."""
    stream = out()
    stream.write(encoded + b"\n")
    stream.flush()


def ask(question: str) -> str:
    """What the person at the terminal answers; "" at the end of input."""
    print(clean(question), end=" ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower()


def confirm(question: str) -> bool:
    """Yes or no from the person at the terminal; no is the default."""
    return ask(f"{question} [y/N]") in ("y", "yes")


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns on stdout. A terminal gets colours and its own width; anything else gets all there is."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    if terminal(sys.stdout):
        _rich_table(columns, cells)
        return
    everything = [list(columns), *cells]
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    for row in everything:
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def files(views: Sequence[ArtifactView], *, everything: bool) -> None:
    """Stored files on stdout: a tree on a terminal, else a line a file."""
    from dstack.cli import filetree

    if not terminal(sys.stdout):
        for text in filetree.lines(views):
            line(text)
        return
    ascii_only = "utf" not in (sys.stdout.encoding or "").lower()
    shown = filetree.tree(views, everything=everything, ascii_only=ascii_only)
    width = max(len(size) for size, _ in shown)
    for size, text in shown:
        line(f"{size.rjust(width)}  {clean(text)}".replace("\n", " "))


def clear() -> None:
    """Empty the terminal's screen; a line between, elsewhere."""
    line("\x1b[H\x1b[2J" if terminal(sys.stdout) else "")


def fields(pairs: Iterable[tuple[str, str | None]]) -> None:
    """`name  value` lines on stdout; None is left out."""
    known = [(name, value) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in known), default=0)
    for name, value in known:
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
    """The one status line of a terminal, on stderr; nothing elsewhere."""

    def __init__(self) -> None:
        self._status: Any = None

    def show(self, text: str) -> None:
        """Put the text there, or change it."""
        if not terminal(sys.stderr):
            return
        if self._status is None:
            from rich.console import Console
            from rich.text import Text

            console = Console(stderr=True, highlight=False, markup=False, no_color=not colour(sys.stderr))
            self._status = console.status(Text(clean(text), no_wrap=True, overflow="ellipsis"))
            self._status.start()
        else:
            from rich.text import Text

            self._status.update(Text(clean(text), no_wrap=True, overflow="ellipsis"))

    def hide(self) -> None:
        """Take it away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextlib.contextmanager
def progress(label: str, total: int) -> Iterator[Any]:
    """A bar for `total` bytes on a terminal's stderr. Yields a function that takes the bytes that came."""
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
