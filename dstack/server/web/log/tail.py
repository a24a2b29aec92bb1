"""The end of a log, for a page that shows it as it grows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from dstack.server.web import html
from dstack.server.web.log.window import WINDOW, LogSource, LogWindow, window_at, window_before


@dataclass
class Tail:
    """What a reader has seen of a log: up to byte `seen`, where the line begins that may still grow, and `end`. `path`
    is that of the page where the log can be read."""

    source: LogSource
    path: str
    seen: int
    end: int

    def resumed(self, offset: str) -> Tail:
        """Return the tail for a reader who has seen it up to `offset`; the log's start for one who says nonsense."""
        seen = int(offset) if offset.isdecimal() and len(offset) < 18 else 0
        return Tail(self.source, self.path, seen, seen)

    async def more(self, base: str) -> dict[str, Any] | None:
        """Return the lines from `seen` on if there is something new, as they replace what the reader has from `at` on.
        If there is more than a window, the reader skips to the newest (`skipped`)."""
        size = self.source.size
        if size == self.end:
            return None
        far = size - self.seen > WINDOW
        window = await asyncio.to_thread(window_before if far else window_at, self.source, size if far else self.seen)
        self.seen, self.end = window.last, window.end
        lines = html.page("parts/log_lines", {"window": window, "log_url": base + self.path})
        return {"at": window.start, "skipped": far, "html": lines}


def tail_of(source: LogSource, path: str, window: LogWindow) -> Tail:
    """Return the tail behind a window that ends where the log does."""
    return Tail(source, path, window.last, window.end)
