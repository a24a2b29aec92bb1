"""Measures and cuts text in cells of a terminal: a Chinese character or an emoji takes two, a colour code none."""

from __future__ import annotations

import re

COLOUR = re.compile(r"\x1b\[[0-9;:]*m")
CONTROL = re.compile(r"[\x00-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;:]*m)")
WIDE = "\ufe0f"
"""Makes an emoji of the character before it, which then takes two cells."""
RESET = "\x1b[0m"
ELLIPSIS = "…"


def width(text: str) -> int:
    """Return how many cells a line takes."""
    plain = COLOUR.sub("", text) if "\x1b" in text else text
    if plain.isascii():
        return len(plain)
    from rich.cells import cell_len

    return sum(map(cell_len, plain)) + plain.count(WIDE)


def plain(text: str, encoding: str) -> str:
    """Return a line without control characters except colour codes, and with `?` for what the encoding lacks."""
    return CONTROL.sub("", text.expandtabs()).encode(encoding, "replace").decode(encoding)


def pad(text: str, cells: int) -> str:
    """Fill a line up with spaces."""
    return text + " " * (cells - width(text))


def cut(text: str, cells: int) -> str:
    """Return the line if it fits, else as much as fits with `…`."""
    if width(text) <= cells:
        return text
    kept, used, coloured = [], 0, False
    for part in re.findall(rf"{COLOUR.pattern}|.", text, re.DOTALL):
        if part.startswith("\x1b["):
            coloured = True
        elif (used := used + width(part)) > cells - 1:
            break
        kept.append(part)
    return "".join(kept) + (ELLIPSIS if cells > 0 else "") + (RESET if coloured else "")
