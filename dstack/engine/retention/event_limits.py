"""Bounds the event log."""

from __future__ import annotations

import asyncio
import time

from dstack.model.text.units import rfc3339
from dstack.store.store import Store

MOST = 100_000
"""How many events are kept."""
OLDEST = 90 * 86400.0
"""Seconds for which an event is kept."""
PAUSE = 3600.0
"""Seconds between two passes."""


async def limit_events(store: Store) -> None:
    """Forget the oldest events, at the start and once per hour."""
    while True:
        store.events.trim(rfc3339(time.time() - OLDEST), MOST)
        await asyncio.sleep(PAUSE)
