"""Searches a log for a text, a bounded part of it at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from markupsafe import Markup, escape

from dstack.model.text.untrusted import clean_line
from dstack.server.web.log.terminal import PLAIN, Colours, cells
from dstack.server.web.log.window import LogSource

BLOCK = 1 << 20
AT_ONCE = 256 * BLOCK
"""Bytes that one search reads."""
SECONDS = 1.0
"""Seconds that one search takes."""
MOST = 100
"""Lines that one search returns."""
AROUND = 200
"""Bytes of a line before and after what was found."""
LONGEST = 200
"""Characters of what is searched for."""


@dataclass(frozen=True)
class Hit:
    """A line in which the text was found, and the byte `at` which it begins."""

    at: int
    text: Markup


@dataclass(frozen=True)
class Hits:
    """What was found before byte `until`; `complete` if that is the end of the log."""

    hits: list[Hit]
    until: int
    complete: bool


def search(source: LogSource, wanted: str, start: int) -> Hits:
    """Return the lines from byte `start` on that contain the text, in whatever case its ASCII letters are."""
    needle = wanted[:LONGEST].encode("utf-8", "surrogateescape").lower()
    size, at, deadline = source.size, start, time.monotonic() + SECONDS
    hits: list[Hit] = []
    while at < size and at - start < AT_ONCE and time.monotonic() < deadline:
        data = source.read(at, min(size, at + BLOCK + len(needle) - 1))
        folded, found = data.lower(), -1
        while (found := folded.find(needle, found + 1)) >= 0:
            if len(hits) == MOST:
                return Hits(hits, at + found, complete=False)
            hits.append(hit(source, at + found, len(needle)))
            found = max(found, folded.find(b"\n", found))  # one hit per line
        at += BLOCK
    return Hits(hits, min(at, size), at >= size)


def hit(source: LogSource, at: int, length: int) -> Hit:
    """Return the line around a place, and a link to its beginning, if that is near."""
    begin = max(0, at - 4096)
    before = source.read(begin, at)
    line = at - len(before) + before.rfind(b"\n") + 1
    start = max(line, at - AROUND)
    after = source.read(at + length, at + length + AROUND).split(b"\n")[0]
    text = [plain(piece) for piece in (source.read(start, at), source.read(at, at + length), after)]
    return Hit(line, Markup("{}<mark>{}</mark>{}").format(*map(escape, text)))


def plain(data: bytes) -> str:
    """Return the text that a terminal would show, without colours."""
    text = data.decode(errors="replace")
    if PLAIN.search(text):
        text = "".join(character for character, _ in cells(text, Colours()))
    return clean_line(text)
