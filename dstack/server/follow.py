"""Streams a run or job as frames: changes of state, and log bytes as they arrive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

from anyio import move_on_after

from dstack.engine.context import Context
from dstack.model.api import wire
from dstack.model.api.jobs import JobView
from dstack.model.api.runs import Event
from dstack.model.job.job import Job
from dstack.model.job.log_mask import mask, needles, reach, unfinished
from dstack.server.views import job_view, run_view
from dstack.store.logs import Logs, chunks
from dstack.store.lookup import jobs_named

BLOCK = 256 * 1024
"""Most log bytes in one frame."""
PING = 15.0
"""Seconds of silence after which the reader gets a ping."""


class Follower:
    """Streams one run or job from the reader's offsets (log bytes by job id). With `live` it continues until the end;
    `logs` says whether to send log bytes."""

    def __init__(self, context: Context, ref: str, offsets: dict[str, int], *, live: bool, logs: bool) -> None:
        self.context = context
        self.run, jobs, self.whole = jobs_named(context.store, ref)
        self.ids = [job.id for job in jobs]
        self.offsets = dict(offsets)
        self.live = live
        self.logs = logs
        self.sent: dict[str, JobView] = {}

    async def frames(self) -> AsyncIterator[bytes]:
        """Yield frames until every job has ended or, without `live`, until the reader is up to date."""
        while True:
            bell = self.context.events.subscribe(self.run.name)
            jobs = [self.context.told(self.context.store.jobs.require(job)) for job in self.ids]
            for frame in self.news(jobs):
                yield frame
            if not self.live or all(job.finished for job in jobs):
                break
            with move_on_after(PING) as silence:
                await bell.wait()
            if silence.cancelled_caught:
                yield encoded(Event(event="ping"))
        if self.whole:
            jobs = self.context.store.jobs.of(self.run.name)
            run = run_view(self.run, jobs, metrics=self.context.store.metrics.of(jobs))
            yield encoded(Event(event="run", run=run))

    def news(self, jobs: list[Job]) -> Iterator[bytes]:
        """Yield what the reader lacks. A job's whole log comes before the frame that says it has ended."""
        for job in jobs:
            view = job_view(job)
            changed = [encoded(Event(event="job", job=view))] if self.sent.get(job.id) != view else []
            self.sent[job.id] = view
            if not job.finished:
                yield from changed
            if self.logs:
                yield from self.log(job)
            if job.finished:
                yield from changed

    def log(self, job: Job) -> Iterator[bytes]:
        """Yield the bytes of a job's log from the reader's offset on."""
        start = self.offsets.get(job.id, 0)
        secrets = needles(self.context.store.secrets.given(job.source))
        for offset, time, data in masked(self.context.store.logs, job, start, secrets):
            event = Event(event="log", id=job.id, workflow=job.workflow, offset=offset, bytes=len(data), time=time)
            yield encoded(event) + data
            self.offsets[job.id] = offset + len(data)


def masked(logs: Logs, job: Job, start: int, secrets: Sequence[bytes]) -> Iterator[tuple[int, str, bytes]]:
    """Yield the log from `start` on with secrets masked. Bytes that may begin a secret wait for the rest of it."""
    if not secrets:
        yield from chunks(logs, job.source, start, BLOCK)
        return
    size, far = logs.size(job.source), reach(secrets)
    tail = logs.read(job.source, max(0, size - far), far)
    end = size if job.finished else size - unfinished(tail, secrets)
    for offset, time, data in chunks(logs, job.source, start, BLOCK):
        wanted = data[: max(0, end - offset)]
        if wanted:
            before = logs.read(job.source, max(0, offset - far), min(far, offset))
            after = logs.read(job.source, offset + len(wanted), far)
            yield offset, time, mask(before, wanted, after, secrets)


def encoded(event: Event) -> bytes:
    """Return the event as one line of JSON."""
    return wire.encode(event) + b"\n"
