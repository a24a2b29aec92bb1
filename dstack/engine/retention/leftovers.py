"""Removes what killed processes left on the server: partial submissions, half mirrors, incomplete artifacts."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import suppress
from pathlib import Path

from dstack.engine.context import Context
from dstack.mirror.mirror import Mirror

EVERY = 3600.0
"""Seconds between two sweeps."""
ABANDONED = 86400.0
"""Seconds without a change after which something is a leftover. It may belong to a transfer over a slow connection."""


async def keep_swept(context: Context) -> None:
    """Remove leftovers again and again."""
    while True:
        await asyncio.sleep(EVERY)
        await sweep(context, time.time() - ABANDONED)


async def sweep(context: Context, before: float) -> None:
    """Remove what has not changed since `before` (seconds since the epoch). When a server starts, nothing is in use."""
    await asyncio.to_thread(sweep_files, context.layout.incoming, before)
    await asyncio.to_thread(sweep_fetches, context.layout.mirrors, before)
    for path in context.layout.mirrors.glob("*.git"):
        await asyncio.to_thread(Mirror(path).sweep, before)
    await context.artifacts.current.sweep(before)


def sweep_files(folder: Path, before: float) -> None:
    for left in folder.iterdir():
        with suppress(FileNotFoundError):  # its submission has just ended
            if left.stat().st_mtime < before:
                left.unlink()


def sweep_fetches(mirrors: Path, before: float) -> None:
    """Remove the repositories into which killed servers fetched."""
    for left in mirrors.glob("fetch-*"):
        if left.stat().st_mtime < before:
            shutil.rmtree(left, ignore_errors=True)
