"""Runs tasks so that none dies silently: one that fails is tried again, and its trouble is told."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from dstack.errors import DstackError, ServerTroubleError, server_trouble

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 10.0
"""Seconds before a failed task is tried again: each time twice as long."""
WELL = 60.0
"""Seconds without a failure after which a task's earlier troubles are over."""

Work = Callable[[], Awaitable[Any]]

log = logging.getLogger("dstack.engine")


@dataclass
class Trouble:
    """Why a task fails, how often it has, and since when (wall clock, seconds). `at` is the moment of the last failure,
    `again` that of the next try (both monotonic)."""

    error: Exception
    count: int = 0
    since: float = field(default_factory=time.time)
    at: float = 0.0
    again: float = 0.0

    @property
    def words(self) -> str:
        """What went wrong, in one line."""
        error = self.error
        return error.message if isinstance(error, DstackError) else f"internal error in dstack: {error!r}"


class Supervisor:
    """Keeps the troubles of tasks by name. `changed` is called when a task fails."""

    def __init__(self) -> None:
        self.running: set[asyncio.Task[Any]] = set()
        self.troubles: dict[str, Trouble] = {}
        self.changed: Callable[[], None] = lambda: None

    def start(self, name: str, work: Work, *, once: bool = False) -> None:
        """Do the work in the background: until it succeeds, or `once`."""
        task: asyncio.Task[Any] = asyncio.create_task((self.attempt if once else self.keep)(name, work))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def keep(self, name: str, work: Work) -> None:
        """Do the work until it succeeds, with growing pauses between two tries."""
        while not await self.attempt(name, work):
            trouble = self.resting(name)
            await asyncio.sleep(trouble.again - time.monotonic() if trouble else 0.0)

    async def attempt(self, name: str, work: Work) -> bool:
        """Do the work once; return whether it succeeded."""
        try:
            await work()
        except Exception as error:
            self.failed(name, server_trouble(error) or error)
            return False
        if over := self.troubles.pop(name, None):
            log.info("%s: it works again; it had failed (%d)", name, over.count)
        return True

    def failed(self, name: str, error: Exception) -> None:
        """Note a failure. Only the first of its kind is logged, and then each tenfold number."""
        now, before = time.monotonic(), self.troubles.get(name)
        if before is None or now - before.at > WELL:
            before = self.troubles[name] = Trouble(error)
        same = before.count and kind(error) == kind(before.error)
        before.error, before.count, before.at = error, before.count + 1, now
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(before.count - 1, 10))
        before.again = now + pause * random.uniform(0.75, 1.25)
        if not same or before.count in (10, 100, 1000, 10_000):
            trace = None if isinstance(error, DstackError) else error
            log.error("%s: %s; failed %d times, and is tried again", name, before.words, before.count, exc_info=trace)
        self.changed()

    def resting(self, name: str) -> Trouble | None:
        """Return the trouble of a task that waits for its next try, or None."""
        trouble = self.troubles.get(name)
        return trouble if trouble and trouble.again > time.monotonic() else None

    def current(self) -> dict[str, Trouble]:
        """Return the troubles that are not over, by the task's name."""
        over = time.monotonic() - WELL
        self.troubles = {name: trouble for name, trouble in self.troubles.items() if trouble.at > over}
        return self.troubles


def kind(error: Exception) -> tuple[type[Exception], str]:
    """What two failures of the same kind have in common."""
    text = error.code if isinstance(error, ServerTroubleError) else str(error)
    return type(error), text
