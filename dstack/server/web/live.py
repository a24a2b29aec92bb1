"""Keeps open pages up to date: one stream of server-sent events per tab, which replaces the parts that changed.

An event's id names what the reader has then seen. Parts are states and not steps, so a stream that was cut off resumes
by comparing that id with what is current. (https://html.spec.whatwg.org/multipage/server-sent-events.html)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from anyio import move_on_after

from dstack.engine.context import ANYTHING, Context
from dstack.errors import DstackError
from dstack.server.web import html
from dstack.server.web.log.tail import Tail

TICK = 5.0
"""Seconds after which a page is looked at again although nothing happened: usage changes without an event."""
PAUSE = 0.5
"""Seconds between two looks, however much happens."""
SHARED = 1.0
"""Seconds for which all tabs that show the same get the same."""
PING = 15.0
"""Seconds without an event after which a comment keeps the connection open."""
MOST_SHARED = 200

Load = Callable[[], Awaitable[dict[str, Any]]]


@dataclass
class Live:
    """The streams of all tabs. `shared` has what was rendered a moment ago, by page and reader."""

    context: Context
    shared: dict[str, tuple[float, asyncio.Task[dict[str, Any]]]] = field(default_factory=dict)
    used: float = 0.0

    def version(self, parts: Mapping[str, str], values: Mapping[str, Any]) -> str:
        """Return the id of what a page shows: a hash of its parts, and where its log ends."""
        digest = sha256("\0".join(parts.values()).encode()).hexdigest()[:16]
        tail = values.get("tail")
        return f"{digest}:{tail.seen}" if tail else digest

    async def frames(
        self, template: str, load: Load, key: str, run: str | None, seen: str, base: str, alive: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """Yield what changes on a page, until its reader leaves. `seen` is the id of what the reader has. A page that
        can't be shown any more, or whose session has ended, is told to load anew."""
        digest, _, offset = seen.partition(":")
        parts: dict[str, str] = {}
        tail: Tail | None = None
        spoke = time.monotonic()
        yield b"retry: 2000\n\n"
        while True:
            self.used = time.monotonic()
            bell = self.context.events.subscribe(run or ANYTHING)
            try:
                looked = await self.look(template, load, key) if alive() else None
            except DstackError:
                looked = None
            if looked is None:
                yield frame("reload", "", "")
                return
            if tail is None and looked["tail"] is not None:
                tail = looked["tail"].resumed(offset)
            fresh = {name: part for name, part in looked["parts"].items() if parts.get(name) != part}
            if not parts and looked["digest"] == digest:
                fresh = {}
            parts = looked["parts"]
            lines = await tail.more(base) if tail else None
            ident = f"{looked['digest']}:{tail.seen}" if tail else looked["digest"]
            sent = [frame("part", ident, {"id": name, "html": part}) for name, part in fresh.items()]
            sent += [frame("log", ident, lines)] if lines else []
            if not sent and time.monotonic() - spoke > PING:
                sent = [b": still here\n\n"]
            if sent:
                spoke = time.monotonic()
                yield b"".join(sent)
            await asyncio.sleep(PAUSE)
            with move_on_after(TICK):
                await bell.wait()

    async def look(self, template: str, load: Load, key: str) -> dict[str, Any]:
        """Return the parts of a page as they are now, or were a moment ago when another tab asked, and no event has
        happened since."""
        now, key = time.monotonic(), f"{self.context.store.events.last} {key}"
        at, task = self.shared.get(key, (0.0, None))
        if task is None or now - at > SHARED:
            self.shared = {each: found for each, found in self.shared.items() if now - found[0] < SHARED}
            task = asyncio.create_task(self.render(template, load))
            if len(self.shared) < MOST_SHARED:
                self.shared[key] = (now, task)
        return await asyncio.shield(task)

    async def render(self, template: str, load: Load) -> dict[str, Any]:
        values = await load()
        parts = html.live_parts(template, values)
        return {"parts": parts, "digest": self.version(parts, {}), "tail": values.get("tail")}


def frame(event: str, ident: str, data: Any) -> bytes:
    """Return one event. Its data is one line of JSON."""
    name = f"id: {ident}\n" if ident else ""
    return f"event: {event}\n{name}data: {html.as_json(data)}\n\n".encode()
