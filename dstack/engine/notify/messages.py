"""Which messages an event brings about. Each event is looked at in order, and one that was looked at never again."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator

from dstack.model.api.events import EventView
from dstack.model.job.job import Job, Run
from dstack.model.job.status import Status, summary
from dstack.model.notify.message import (
    WAITING,
    Message,
    MessageFacts,
    ended,
    named,
    patience,
    queued_since,
    waits,
    wanted,
)
from dstack.model.text.units import rfc3339
from dstack.store.store import Store
from dstack.store.tables.notify import ENDS

BATCH = 500
"""How many events are looked at before other tasks get their turn."""
LOOK = 5.0
"""Seconds between two looks at how long runs have been waiting."""


class Messages:
    """Puts messages into the outbox: each in the transaction that moves the cursor over its event. `clock` is the time
    of day in seconds."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.time) -> None:
        self.store, self.clock = store, clock
        self.after: int | None = None
        self.looked = -LOOK
        self.patience: dict[str, float | None] = {}

    async def derive_all(self) -> None:
        """Look at all events so far."""
        more = True
        while more:
            more = self.derive()
            await asyncio.sleep(0)

    def derive(self) -> bool:
        """Look at the next events; return whether there may be more."""
        if not self.store.notify_targets.any():
            self.after = None
            return False
        if self.after is None:
            self.after = max(self.store.outbox.cursor, self.store.notify_targets.after)
        events = self.store.events.select(BATCH, after=self.after)
        messages = [message for event in events for message in self.about(event)]
        if messages:
            self.store.outbox.advance(events[-1].id, messages)
        self.after = events[-1].id if events else self.after
        return len(events) == BATCH

    def about(self, event: EventView) -> Iterator[tuple[int, Message]]:
        """Yield the messages about an event, each with the number of its target. A run has ended with the last event
        that ended one of its jobs."""
        run = self.store.runs.get(event.run) if event.run and event.kind in ENDS else None
        if run is None or self.store.outbox.last_end(run.name) != event.id:
            return
        jobs = self.store.jobs.of(run.name)
        status = summary([job.status for job in jobs])
        if status.finished and wanted(named(run), status):
            message = self.message(run, f"run.{status.value}", event.time, ended(run, jobs))
            for number in self.store.notify_targets.listeners(run.user, event.id):
                yield number, message

    def message(self, run: Run, kind: str, at: str, facts: MessageFacts, more: str = "") -> Message:
        """Return a message whose id is always the same: also after a restore, or if the event is recorded anew."""
        seed = "\n".join((self.store.identity.id, run.name, run.submitted_at, kind, more))
        return Message(id=f"msg_{hashlib.sha256(seed.encode()).hexdigest()[:32]}", type=kind, timestamp=at, data=facts)

    def look(self, now: float) -> None:
        """Say which runs have waited in the queue for as long as their workflows allow. `now` is monotonic."""
        if now - self.looked < LOOK or not self.store.notify_targets.any():
            return
        self.looked = now
        queued = {job.run for job in self.store.jobs.unfinished() if job.status is Status.QUEUED}
        self.patience = {name: self.patience[name] if name in self.patience else self.limit(name) for name in queued}
        for name in sorted(name for name, limit in self.patience.items() if limit is not None):
            self.wait(self.store.runs.require(name), self.store.jobs.of(name))

    def limit(self, name: str) -> float | None:
        """Return after how many seconds in the queue a run is to be told; None for never."""
        run = self.store.runs.get(name)
        return patience(named(run)) if run else None

    def wait(self, run: Run, jobs: list[Job]) -> None:
        """Tell a run that has waited for long enough, once each time that it begins to wait."""
        since, now, limit = queued_since(run, jobs), self.clock(), self.patience[run.name]
        if since is None or limit is None or now - since < limit:
            return
        begun = rfc3339(since)
        if not self.store.outbox.told_to_wait(run.name, begun):
            message = self.message(run, WAITING, rfc3339(now), waits(run, jobs, since, now), begun)
            listeners = self.store.notify_targets.listeners(run.user, self.store.events.last + 1)
            self.store.outbox.waits(run.name, begun, [(number, message) for number in listeners])
