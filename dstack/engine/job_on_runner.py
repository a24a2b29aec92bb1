"""A job on the runner that it was placed on, as it is recorded now."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from dstack.artifacts.store import ArtifactStore, JobFolder
from dstack.commands.artifacts.collect import made
from dstack.commands.host import Host
from dstack.engine.context import Context
from dstack.errors import ServerTroubleError
from dstack.executors.executor import Executor
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Stopped
from dstack.model.job.job import Job
from dstack.model.paths import attempt_id
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Runner
from dstack.model.text.units import span
from dstack.plumbing.clock import steady, time_of_day


class JobOnRunner:
    """Always reads from the store, because other parts of the server change jobs and runners, too. `answered` is when
    the runner answered last about this job (by `steady`, seconds), None if this server has not heard of it."""

    def __init__(self, context: Context, job_id: str) -> None:
        self.context = context
        self.store = context.store
        self.id = job_id
        self.answered: float | None = None

    @property
    def job(self) -> Job:
        return self.store.jobs.require(self.id)

    @property
    def snapshot(self) -> Snapshot:
        return self.store.runs.require(self.job.run).snapshot

    @property
    def runner(self) -> Runner:
        return self.store.runners.require(self.job.runner or "")

    @property
    def host(self) -> Host:
        return self.context.fleet.host(self.runner)

    @property
    def last_answer(self) -> float:
        """When the runner was heard last (wall clock, seconds); now, if this server has not heard of it."""
        answered = max(self.answered or 0.0, self.host.answered or 0.0)
        return time_of_day(answered) if answered else time.time()

    @property
    def host_context(self) -> HostContext:
        return self.context.fleet.host_context(self.runner)

    @property
    def executor(self) -> Executor:
        return self.context.executors[self.runner.kind](self.runner, self.host, self.host_context)

    @property
    def attempt(self) -> str:
        """The name of the job's attempt on the runner."""
        return attempt_id(self.id, self.job.attempt)

    @property
    def grace(self) -> int:
        """Seconds between SIGTERM and SIGKILL."""
        return math.ceil(span(self.job.definition.stop_grace))

    @property
    def log_offset(self) -> int:
        """How many bytes of the attempt's log have been read."""
        return self.store.logs.size(self.id) - self.job.log_start

    async def append_log(self, stream: AsyncGenerator[bytes, None]) -> None:
        """Append to the log what arrives, and notify the job's followers. The runner answers, so it is reachable."""
        async with aclosing(stream):
            async for data in stream:
                self.store.logs.append(self.id, data)
                self.answered = steady()
                if self.job.unreachable_since:
                    self.change(unreachable_since=None, reason=None)
                self.context.events.publish([self.job.run])

    async def stop(self, grace: int | None) -> Stopped:
        """Tell the attempt to end, see `Executor.stop`. Why it has to end is on disk before."""
        await self.store.database.synced()
        return await self.executor.stop(self.attempt, grace)

    def folder(self, tree: str | None = None) -> JobFolder:
        """The job's folder on the runner. Its files are in `tree`, by default where they are after the job's end."""
        job = self.job
        return JobFolder(
            job=job.id,
            run=job.run,
            workflow=job.workflow,
            attempt=self.attempt,
            runner=self.runner.name,
            host=self.host,
            context=self.host_context,
            tree=made(self.snapshot.project) if tree is None else tree,
        )

    def will_store(self) -> ArtifactStore:
        """Return the current storage, and record it as the last one that may hold artifacts of the job: they are read
        from there, and removed later."""
        here = (self.context.artifacts.url, self.context.artifacts.endpoint)
        if here not in self.job.storages[-1:]:
            self.change(storages=(*(each for each in self.job.storages if each != here), here))
        return self.context.artifacts.at(*here)

    def report(self, **changes: Any) -> None:
        """Record how far a transfer is, unless the server can't record it now: the transfer goes on."""
        with suppress(ServerTroubleError):
            self.change(**changes)

    def change(self, **changes: Any) -> Job:
        return self.store.jobs.change(self.id, **changes)
