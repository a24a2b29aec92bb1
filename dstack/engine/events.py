"""Wakes whoever waits for a run, or anything, to change."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

ANYTHING = ""
"""In place of a run: every event of the log."""


class Events:
    """One bell per run; a listener sleeps until it rings. The store rings it when it commits a change, and the drive
    when log bytes arrive. A ring without a listener is lost: take the bell first, then look, then wait."""

    def __init__(self) -> None:
        self.events: dict[str, asyncio.Event] = {}

    def subscribe(self, run: str) -> asyncio.Event:
        """Return the bell that rings at the run's next change."""
        return self.events.setdefault(run, asyncio.Event())

    def publish(self, runs: Iterable[str]) -> None:
        """Report that something about these runs changed."""
        for run in runs:
            if run in self.events:
                self.events.pop(run).set()
