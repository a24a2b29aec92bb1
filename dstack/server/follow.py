"""Streams a run or job as frames: changes of state, and log bytes as they arrive."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

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
SHARED = 64
"""How many pieces of logs are kept for the next followers, of at most BLOCK bytes each."""
PING = 15.0
"""Seconds of silence after which the reader gets a ping."""


class Recent:
    """The frames that followers got last: of thousands who follow one log, the first reads what is new, and the others
    get the same frames."""

    def __init__(self) -> None:
        self.kept: OrderedDict[Hashable, tuple[LogFrame, ...]] = OrderedDict()

    def frames(self, key: Hashable, size: int, read: Callable[[], Iterator[LogFrame]]) -> Iterable[LogFrame]:
        """Return the frames of a key, which stands for `size` log bytes that never change."""
        if size > BLOCK:
            return read()
        if key not in self.kept:
            self.kept[key] = tuple(read())
            if len(self.kept) > SHARED:
                self.kept.popitem(last=False)
        return self.kept[key]


class Begin(NamedTuple):
    """Where a log begins: with its last `tail` lines, and with what arrived at `since` (seconds since the epoch)."""

    tail: int | None = None
    since: float | None = None

    def offset(self, logs: Logs, job: str) -> int:
        """Return the first byte of this job's log that is wanted."""
        lines = 0 if self.tail is None else logs.last_lines(job, self.tail)
        return max(lines, 0 if self.since is None else logs.begins(job, self.since))


WHOLE = Begin()


class Follower:
    """Streams one run or job from the reader's offsets (log bytes by job id), or from where its logs are to `begin` if
    that is later. With `live` it continues until the end; `logs` says whether to send log bytes."""

    def __init__(
        self,
        context: Context,
        ref: str,
        offsets: dict[str, int],
        *,
        live: bool,
        logs: bool,
        begin: Begin = WHOLE,
        recent: Recent | None = None,
    ) -> None:
        self.context = context
        self.begin = begin
        self.recent = recent or Recent()
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
            try:
                await asyncio.wait_for(bell.wait(), PING)
            except asyncio.TimeoutError:
                yield encoded(Event(event="ping"))
        if self.whole:
            run = run_view(self.run, self.context.store.jobs.of(self.run.name))
            yield encoded(Event(event="run", run=run))

    def news(self, jobs: list[Job]) -> Iterator[bytes]:
        """Yield what the reader lacks. A job's whole log comes before the frame that says it has ended."""
        for job in jobs:
            view = job_view(job)
            changed = [encoded(Event(event="job", job=view))] if self.sent.get(job.id) != view else []
            if not job.finished:
                yield from changed
            if self.logs:
                yield from self.log(job)
            self.sent[job.id] = view
            if job.finished:
                yield from changed

    def log(self, job: Job) -> Iterator[bytes]:
        """Yield the bytes of a job's log from the reader's offset on."""
        logs = self.context.store.logs
        if job.id not in self.sent and (first := self.begin.offset(logs, job.source)) > self.offsets.get(job.id, 0):
            self.offsets[job.id] = first
            yield log_frame(job, first, None, b"").frame
        start, end = self.offsets.get(job.id, 0), logs.size(job.source)
        secrets = needles(self.context.store.secrets.given(job.source))
        key = (job.id, job.finished, start, end, tuple(secrets))
        for part in self.recent.frames(key, end - start, lambda: self.read(job, start, secrets)):
            yield part.frame
            self.offsets[job.id] = part.end

    def read(self, job: Job, start: int, secrets: Sequence[bytes]) -> Iterator[LogFrame]:
        for offset, time, data in masked(self.context.store.logs, job, start, secrets):
            yield log_frame(job, offset, time, data)


class LogFrame(NamedTuple):
    """A frame of a log, and the offset behind it."""

    frame: bytes
    end: int


def log_frame(job: Job, offset: int, time: str | None, data: bytes) -> LogFrame:
    event = Event(event="log", id=job.id, workflow=job.workflow, offset=offset, bytes=len(data), time=time)
    return LogFrame(encoded(event) + data, offset + len(data))


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
