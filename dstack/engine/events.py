"""Wakes whoever waits for a run to change."""

from __future__ import annotations

import asyncio


class Events:
    """One bell per run; a listener sleeps until it rings. A ring without a listener is lost: take the bell first, then
    look, then wait."""

    def __init__(self) -> None:
        self.events: dict[str, asyncio.Event] = {}

    def subscribe(self, run: str) -> asyncio.Event:
        """Return the bell that rings at the run's next change."""
        return self.events.setdefault(run, asyncio.Event())

    def publish(self, run: str) -> None:
        """Report that something about the run changed."""
        bell = self.events.pop(run, None)
        if bell:
            bell.set()
