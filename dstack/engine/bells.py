"""Wakes those who wait for a run to change."""

from __future__ import annotations

import asyncio


class Bells:
    """One bell a run: who listens sleeps until it rings. A ring that nobody hears is not remembered, so: take the
    bell, look, and only then wait."""

    def __init__(self) -> None:
        self.bells: dict[str, asyncio.Event] = {}

    def take(self, run: str) -> asyncio.Event:
        """The bell that the next change of the run will ring."""
        return self.bells.setdefault(run, asyncio.Event())

    def ring(self, run: str) -> None:
        """Something about the run changed."""
        bell = self.bells.pop(run, None)
        if bell:
            bell.set()
