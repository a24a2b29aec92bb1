"""Keeps the server's mirrors small: what no run needs goes, and the rest becomes one pack."""

from __future__ import annotations

import asyncio
import logging

from dstack.engine.context import Context
from dstack.errors import DstackError

MOST_PACKS = 50
"""Packs in a mirror before it is collected: each submission adds one."""

log = logging.getLogger("dstack.engine")


async def tidy(context: Context, repo: str, *, most: int = MOST_PACKS) -> None:
    """Collect a repository's mirror if it has more packs. Every run's code stays, so that it can be run again."""
    mirror = context.mirror(repo)
    if mirror.packs <= most:
        return
    wanted = context.store.runs.snapshots(repo)
    try:
        await asyncio.to_thread(mirror.collect, wanted)
    except DstackError as trouble:
        log.warning("the mirror of %s could not be collected: %s", repo, trouble.message)
