"""What the executors of a server remember about runners, to start jobs sooner. Nothing depends on it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import suppress

from dstack.errors import DstackError
from dstack.executors.docker.image_pulls import ImagePulls
from dstack.model.job.job import Origin

UNUSED = 30.0
"""Seconds after which a log that nobody has followed is closed."""
DAEMON = re.compile(r"\d{1,10}:\d{1,20}")


class Memory:
    """The pulls in progress, the logs that came behind launches, and the Docker daemons that runners named."""

    def __init__(self) -> None:
        self.pulls = ImagePulls()
        self.logs: dict[str, AsyncGenerator[bytes, None]] = {}
        self.daemons: dict[str, tuple[str, ...]] = {}
        self.closing: set[asyncio.Task[None]] = set()

    def note_daemons(self, runner: str, origin: Origin | None) -> None:
        """Remember which daemons a runner named."""
        named = origin.engine.split() if origin else []
        self.daemons[runner] = tuple(named) if all(DAEMON.fullmatch(each) for each in named) else ()

    def keep_log(self, attempt: str, log: AsyncGenerator[bytes, None]) -> None:
        """Keep the log of an attempt, from its first byte on, for its follower."""
        self.logs[attempt] = log
        asyncio.get_running_loop().call_later(UNUSED, self.close_log, attempt, log)

    def close_log(self, attempt: str, log: AsyncGenerator[bytes, None]) -> None:
        """Close the log unless it was taken."""
        if self.logs.get(attempt) is log:
            del self.logs[attempt]
            task = asyncio.ensure_future(closed(log))
            self.closing.add(task)
            task.add_done_callback(self.closing.discard)

    def take_log(self, attempt: str, offset: int) -> AsyncGenerator[bytes, None] | None:
        """Return the log of an attempt if it begins at `offset`. It is the caller's from now on."""
        return self.logs.pop(attempt, None) if offset == 0 else None


async def closed(log: AsyncGenerator[bytes, None]) -> None:
    """Close a stream that nobody reads."""
    with suppress(DstackError):
        await log.aclose()
