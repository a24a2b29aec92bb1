"""Fits a table into the width of a terminal: one row for each item, whatever it contains."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.cli.output import cells

GAP = 2
"""Cells between two columns."""
LEAST = 12
"""Cells that the last column keeps, if it needs them, while there are columns that can be left out."""
NARROWEST = 6


def lay_out(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = None, spare: Sequence[str] = ()
) -> list[list[str]]:
    """Return the header and the rows, their cells padded; the last of each row is not. With a `width`, in cells, leave
    out empty columns and then, while it is too narrow, the columns in `spare`; then cut cells with `…`. The first
    column is cut only if it is wider than the terminal: its names are there to be copied."""
    everything = [list(columns), *map(list, rows)]
    widths = [max(map(cells.width, column)) for column in zip(*everything, strict=True)]
    kept = dict(enumerate(widths))
    if width is not None:
        kept = {index: kept[index] for index in kept if index == 0 or not rows or any(row[index] for row in rows)}
        for index in (list(columns).index(name) for name in spare):
            if not _roomy(kept, width) and index in kept:
                del kept[index]
        _squeeze(kept, width)
    return [_row(row, kept) for row in everything]


def _roomy(kept: dict[int, int], width: int) -> bool:
    """Whether all columns fit if the last is cut to what it keeps at least."""
    *others, last = kept.values()
    return sum(others) + GAP * len(others) + min(last, LEAST) <= width


def _squeeze(kept: dict[int, int], width: int) -> None:
    """Make the columns fit: cut the last one, then the widest, then leave out the last ones."""
    first = next(iter(kept))
    while (too_many := sum(kept.values()) + GAP * (len(kept) - 1) - width) > 0:
        last = next(reversed(kept))
        others = [index for index in kept if index != first and kept[index] > NARROWEST]
        if last != first and kept[last] > LEAST:
            kept[last] = max(LEAST, kept[last] - too_many)
        elif others:
            kept[max(others, key=lambda index: kept[index])] -= 1
        elif last != first:
            del kept[last]
        else:
            kept[first] = width


def _row(row: Sequence[str], kept: dict[int, int]) -> list[str]:
    last = next(reversed(kept))
    shown = {index: cells.cut(row[index], width) for index, width in kept.items()}
    return [text if index == last else cells.pad(text, kept[index]) for index, text in shown.items()]
