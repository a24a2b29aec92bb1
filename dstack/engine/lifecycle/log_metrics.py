"""Reads the metrics of a job from its log while it arrives."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.errors import DstackError, server_trouble
from dstack.model.job.log_mask import mask, needles, reach
from dstack.model.metrics.lines import complete, end_of_line
from dstack.model.metrics.reader import Reader
from dstack.model.metrics.state import ReaderState

INTERVAL = 1.0
"""Seconds between two looks at a log."""
BLOCK = 128 * 1024
"""Bytes of a log that are read at a time. A longer line is cut there."""


class LogMetrics:
    """Goes on where the database says that reading stopped. A log is read in threads, a block at a time, and what a
    block holds is saved together with its end. Every attempt begins new series: only the last one counts."""

    def __init__(self, job_on_runner: JobOnRunner) -> None:
        self.store, self.job = job_on_runner.store, job_on_runner.job
        self.secrets = needles(self.store.secrets.given(self.job.id)) if self.job.definition.metrics else ()

    async def run(self) -> None:
        """Read what arrives, until cancelled. Returns at once for a job without metrics."""
        if self.job.definition.metrics:
            state = self.begin()
            reader = self.reader(state)
            while True:
                state = await self.catch_up(reader, state)
                await asyncio.sleep(INTERVAL)

    async def finish(self) -> None:
        """Read the rest of a log that is complete, its last line without an end included. A bug in the reading is told
        and ends it: the job must be able to end. Raises ServerTroubleError."""
        if not self.job.definition.metrics:
            return
        state = self.begin()
        try:
            await self.catch_up(self.reader(state), state, ended=True)
        except Exception as bug:
            if isinstance(bug, DstackError) or server_trouble(bug):
                raise
            log.exception("job %s: unexpected error while reading its metrics", self.job.id)
            told = {"": f"internal error in dstack: {bug!r}; for details: dstack server logs"}
            self.store.metrics.save(self.job, replace(self.begin(), refused={**state.refused, **told}), {})

    def begin(self) -> ReaderState:
        """Return where to go on; a new attempt begins anew."""
        state = self.store.metrics.state(self.job.id)
        if state is not None and state.attempt == self.job.attempt:
            return state
        state = ReaderState(position=self.job.log_start, attempt=self.job.attempt)
        with self.store.database.transaction():
            self.store.metrics.remove(self.job.id)
            self.store.metrics.save(self.job, state, {})
        return state

    def reader(self, state: ReaderState) -> Reader:
        return Reader(self.job.definition.metrics or {}, state, self.store.metrics.load(self.job.id))

    async def catch_up(self, reader: Reader, state: ReaderState, *, ended: bool = False) -> ReaderState:
        """Read and save what there is. Return where it stands now."""
        while self.store.logs.size(self.job.id) > state.position:
            end = await asyncio.to_thread(self.read, reader, state.position, ended=ended)
            if end == state.position:
                break
            state = reader.state(end, self.job.attempt)
            self.store.metrics.save(self.job, state, reader.news())
        return state

    def read(self, reader: Reader, start: int, *, ended: bool) -> int:
        """Read a block's whole lines, or its rest if the log has `ended`. Return where it stopped."""
        logs, job = self.store.logs, self.job.id
        data = logs.read(job, start, BLOCK)
        whole = complete(data) or (len(data) if len(data) == BLOCK else 0)
        if ended and len(data) < BLOCK:
            whole = len(data)
        masked = self.masked(start, data)
        at = 0
        while at < whole:
            time, later = logs.arrival(job, start + at)
            end = whole if later is None else min(end_of_line(data, later - start - 1), whole)
            reader.read(masked[at:end], time)
            at = end
        return start + whole

    def masked(self, start: int, data: bytes) -> bytes:
        """Return the bytes as people see them: a secret is no metric."""
        if not self.secrets:
            return data
        logs, job, far = self.store.logs, self.job.id, reach(self.secrets)
        before = logs.read(job, max(0, start - far), min(far, start))
        return mask(before, data, logs.read(job, start + len(data), far), self.secrets)
