"""Cuts the bytes of a log into lines, as programs mean them: a progress bar's `\\r` ends one, too."""

from __future__ import annotations

import re

LONGEST = 4096
"""Characters of a line that are read; what follows them is left out."""
ENDS = (b"\n", b"\r", b"\b")
"""Bytes after which another line begins. Keras moves back with backspaces."""
SPLIT = re.compile("[\r\n\b]+")
ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
"""Colours and other escape sequences of terminals (ECMA-48)."""


def complete(data: bytes) -> int:
    """Return how many of these bytes are whole lines."""
    return max(data.rfind(end) for end in ENDS) + 1


def end_of_line(data: bytes, start: int) -> int:
    """Return where the line ends that byte `start` is in, or the end of the data."""
    found = [at for at in (data.find(end, start) for end in ENDS) if at >= 0]
    return min(found, default=len(data) - 1) + 1


def lines(data: bytes) -> list[str]:
    """Return the lines without escape sequences. Bytes that are not UTF-8 are replaced."""
    text = data.decode(errors="replace")
    if "\x1b" in text:
        text = ESCAPES.sub("", text)
    if "\r" in text or "\b" in text:
        return [line[:LONGEST] for line in SPLIT.split(text) if line]
    return [line[:LONGEST] for line in text.split("\n") if line]
