"""Streams the event log as frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from dstack.engine.context import Context
from dstack.engine.events import ANYTHING
from dstack.errors import NotFoundError
from dstack.model.api.events import EventQuery, EventView
from dstack.model.api.runs import Event
from dstack.model.text.units import rfc3339, seconds
from dstack.server.follow import PING, encoded
from dstack.server.lookup import jobs_named
from dstack.store.store import Store

LISTED = 100
"""How many events are returned if the query sets neither a time nor a limit."""


class EventFollower:
    """Returns the events of a query with a higher id than `after`, and waits for more. Raises NotFoundError for an
    unknown run, job or runner."""

    def __init__(self, context: Context, query: EventQuery, after: int) -> None:
        self.context = context
        self.store = context.store
        self.after = after
        self.filter: dict[str, Any] = {}
        if query.ref is not None:
            self.filter = run_or_job(self.store, query.ref)
        if query.runner is not None:
            self.filter["runner"] = runner(self.store, query.runner)
        if query.since is not None:
            self.filter["since"] = rfc3339(seconds(query.since))
        unlimited = -1 if query.since is not None or after else LISTED
        self.limit = unlimited if query.limit is None or after else query.limit

    def news(self) -> list[EventView]:
        """Return the events that were not returned before."""
        found = self.store.events.newest(self.limit, after=self.after, **self.filter)
        self.after, self.limit = self.store.events.last, -1
        return found

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield each event as a frame: of a run or job until it has ended, else without end."""
        while True:
            bell = self.context.events.subscribe(ANYTHING)
            ended = self.ended()
            for view in self.news():
                yield encoded(Event(event="event", entry=view))
            if ended:
                return
            try:
                await asyncio.wait_for(bell.wait(), PING)
            except asyncio.TimeoutError:
                yield encoded(Event(event="ping"))

    def ended(self) -> bool:
        """Whether the query is about a run or job that has ended."""
        if "job" in self.filter:
            job = self.store.jobs.get(self.filter["job"])
            return job is None or job.finished
        return "run" in self.filter and all(job.finished for job in self.store.jobs.of(self.filter["run"]))


def run_or_job(store: Store, ref: str) -> dict[str, str]:
    """Return the filter for a run or job. The name of a deleted run is enough."""
    try:
        run, jobs, whole = jobs_named(store, ref)
    except NotFoundError:
        if store.events.newest(1, run=ref):
            return {"run": ref}
        raise
    return {"run": run.name} if whole else {"job": jobs[0].id}


def runner(store: Store, name: str) -> str:
    """Return the name of a runner, which may have been removed."""
    if not store.events.newest(1, runner=name):
        store.runners.require(name)
    return name
