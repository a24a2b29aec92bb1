"""Keeps the server's mirrors small: drops what no run needs, and packs the rest into one pack."""

from __future__ import annotations

import asyncio
import logging

from dstack.engine.context import Context
from dstack.errors import DstackError

MOST_PACKS = 50
"""Packs in a mirror before it is collected; each submission adds one."""

log = logging.getLogger("dstack.engine")


async def tidy(context: Context, repo: str, *, most: int = MOST_PACKS) -> None:
    """Collect a repository's mirror if it has more than `most` packs. The code of every run is
    kept, so that it can be run again."""
    mirror = context.mirror(repo)
    if mirror.packs <= most:
        return
    wanted = context.store.runs.snapshots(repo)
    try:
        await asyncio.to_thread(mirror.collect, wanted)
    except DstackError as trouble:
        log.warning("the mirror of %s could not be collected: %s", repo, trouble.message)
