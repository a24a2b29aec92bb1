"""Streams a sweep as lines of JSON: its trials as they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from anyio import move_on_after

from dstack.engine.context import ANYTHING
from dstack.model.api import wire
from dstack.model.api.sweeps import SweepEvent, TrialView
from dstack.model.sweep.sweep import Sweep
from dstack.server.follow import PING
from dstack.server.sweeps.views import SweepViews

REST = 0.5
"""Seconds between two looks at the trials: many events are one."""
AGAIN = 2.0
"""Seconds after which values are looked at again: logs grow without an event."""


@dataclass
class SweepFollower:
    """Streams one sweep until it has ended."""

    views: SweepViews
    name: str
    sent: dict[int, TrialView] = field(default_factory=dict)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield the sweep, its trials whenever they change, and at its end the sweep again."""
        store, events, silent = self.views.store, self.views.context.events, 0.0
        yield encoded(SweepEvent(event="sweep", sweep=self.views.sweep(store.sweeps.require(self.name))))
        while True:
            bell = events.subscribe(ANYTHING)
            sweep = store.sweeps.require(self.name)
            for trial in self.news(sweep):
                silent = 0.0
                yield encoded(SweepEvent(event="trial", trial=trial))
            if sweep.finished:
                yield encoded(SweepEvent(event="sweep", sweep=self.views.sweep(sweep)))
                return
            if silent >= PING:
                silent = 0.0
                yield encoded(SweepEvent(event="ping"))
            silent += await rest(bell)

    def news(self, sweep: Sweep) -> Iterator[TrialView]:
        """Yield the trials that are new or have changed. Only those that were not known to have ended are looked at."""
        open_ = [number for number, view in self.sent.items() if not view.status.finished]
        for trial in self.views.store.sweeps.changing_trials(self.name, max(self.sent, default=0), open_):
            view = self.views.trial(sweep, trial)
            if self.sent.get(trial.number) != view:
                self.sent[trial.number] = view
                yield view


async def rest(bell: asyncio.Event) -> float:
    """Wait for the next event, or a while. Return the seconds that it took at least."""
    await asyncio.sleep(REST)
    with move_on_after(AGAIN) as waiting:
        await bell.wait()
    return REST + AGAIN if waiting.cancelled_caught else REST


def encoded(event: SweepEvent) -> bytes:
    """Return the event as one line of JSON."""
    return wire.encode(event) + b"\n"
