"""Lists the event log as JSON, or streams it as frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.responses import Response, StreamingResponse

from dstack.engine.context import ANYTHING, Context
from dstack.errors import NotFoundError
from dstack.model.api.events import EventQuery, EventView
from dstack.model.api.runs import Event
from dstack.model.text.units import rfc3339, seconds
from dstack.server.border.values import reading
from dstack.server.endpoints import array
from dstack.server.follow import PING, encoded
from dstack.store.lookup import jobs_named
from dstack.store.store import Store

LISTED = 100
"""How many events are returned if the query sets neither a time nor a limit."""
BATCH = 500
"""How many events are read before other requests get their turn."""


@dataclass
class EventRoutes:
    context: Context

    def events(self, query: EventQuery, follow: bool = False, after: int = 0) -> Response:
        follower = EventFollower(self.context, query, min(after, 2**63 - 1))
        if follow:
            return StreamingResponse(follower.frames(), media_type="application/octet-stream")
        return StreamingResponse(array(follower.pages()), media_type="application/json")


class EventFollower:
    """Returns the events of a query with a higher id than `after`, and waits for more. Raises NotFoundError for an
    unknown run, job or runner."""

    def __init__(self, context: Context, query: EventQuery, after: int) -> None:
        self.context = context
        self.store = context.store
        self.about = about(self.store, query)
        with reading():
            self.since = rfc3339(seconds(query.since)) if query.since is not None else None
        limit = query.limit if query.limit is not None or self.since else LISTED
        self.after = after
        if limit is not None and not after:
            self.after = self.store.events.before_newest(limit, **self.about)

    def batch(self) -> list[EventView]:
        found = self.store.events.select(BATCH, after=self.after, since=self.since, **self.about)
        if found:
            self.after = found[-1].id
        return found

    async def pages(self) -> AsyncIterator[list[EventView]]:
        while found := self.batch():
            yield found
            await asyncio.sleep(0)

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield each event as a frame: of a run or job until it has ended, else without end."""
        while True:
            bell = self.context.events.subscribe(ANYTHING)
            ended = self.ended()
            while found := self.batch():
                yield b"".join(encoded(Event(event="event", entry=view)) for view in found)
                await asyncio.sleep(0)
            if ended:
                return
            try:
                await asyncio.wait_for(bell.wait(), PING)
            except asyncio.TimeoutError:
                yield encoded(Event(event="ping"))

    def ended(self) -> bool:
        """Whether the query is about a run or job that has ended."""
        if "job" in self.about:
            job = self.store.jobs.get(self.about["job"])
            return job is None or job.finished
        return "run" in self.about and all(job.finished for job in self.store.jobs.of(self.about["run"]))


def about(store: Store, query: EventQuery) -> dict[str, str]:
    """Return the columns that the events of the query have in common. What is gone is found by its full name."""
    found: dict[str, str] = {}
    if query.runner is not None:
        if not store.events.before_newest(0, runner=query.runner):
            store.runners.require(query.runner)
        found["runner"] = query.runner
    if query.ref is None:
        return found
    try:
        run, jobs, whole = jobs_named(store, query.ref)
    except NotFoundError:
        if not store.events.before_newest(0, run=query.ref):
            raise
        return {**found, "run": query.ref}
    return {**found, "run": run.name} if whole else {**found, "job": jobs[0].id}
