"""The engine: one drive per job, and a pass over the queue whenever something changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from anyio import move_on_after

from dstack.engine.context import Context, drive_of
from dstack.engine.fleet.watch import Watch
from dstack.engine.lifecycle.drive import Drive
from dstack.engine.lifecycle.upload_status import stopping
from dstack.engine.reconcile.reconcile import Reconciler
from dstack.engine.retention.clear import Surplus, clear, clearable, disk_asks, relieve, surplus
from dstack.engine.scheduler import Scheduler
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason
from dstack.model.job.status import Status
from dstack.scheduling.types import Machine
from dstack.store.tables.events import SERVER, acting

TICK = 5.0
"""Seconds between two passes when nothing happens."""


class Engine:
    """Owns the drives. All its state is in the store, so it may be killed at any point and started again."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.store = context.store
        self.drives: dict[str, asyncio.Task[None]] = {}
        self.cleaning: dict[str, asyncio.Task[None]] = {}
        self.wake = asyncio.Event()
        self.reconciler = Reconciler(context, self.drive)
        self.scheduler = Scheduler(context, self.drive, context.store.restoration.doubt)

    def start(self) -> None:
        """Resume every unfinished job where it was, and start scheduling."""
        self.context.tasks.start("scheduling", self.loop)
        self.context.tasks.start("probing the runners", Watch(self.context.fleet).run)

    async def close(self) -> None:
        """Stop driving. Running jobs are left alone."""
        tasks = [*self.context.tasks.running, *self.drives.values(), *self.cleaning.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def poke(self) -> None:
        """Run a scheduling pass soon: something changed that may let a job start."""
        self.wake.set()

    async def loop(self) -> None:
        while True:
            self.wake.clear()
            self.resume()
            self.scheduler.run()
            self.clean()
            due = self.scheduler.again_at
            left = TICK if due is None else max(0.05, min(TICK, due - time.monotonic()))
            with move_on_after(left):
                await self.wake.wait()

    def resume(self) -> None:
        """Drive every placed job that no task drives: all of them when the server has started."""
        for job in self.store.jobs.unfinished():
            if job.status is not Status.QUEUED and (job.id not in self.drives or self.drives[job.id].done()):
                self.drive(job.id)

    def drive(self, job_id: str) -> None:
        """Start a drive for the job; it replaces a drive that is already running."""
        before = self.drives.pop(job_id, None)
        self.drives[job_id] = asyncio.create_task(self.driven(job_id, before))

    async def driven(self, job_id: str, before: asyncio.Task[None] | None) -> None:
        if before:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        with acting(SERVER):  # not the user whose request started the task
            await self.context.tasks.keep(drive_of(job_id), Drive(self.context, job_id).run)
        if self.drives.get(job_id) is asyncio.current_task():
            del self.drives[job_id]
        self.poke()

    def stop(self, jobs: Iterable[Job], *, abort: bool, why: Reason | None = None) -> None:
        """Record the stop for each unfinished job, and `why` unless it was `dstack stop`, then act on it."""
        for job in jobs:
            if job.finished or (job.stop and not abort):
                continue
            storing = job.status is Status.UPLOADING and not abort
            reason = stopping(job) if storing else job.reason
            self.store.jobs.change(job.id, stop="abort" if abort else "stop", stop_reason=why, reason=reason)
            if job.status is not Status.QUEUED and not storing:
                self.drive(job.id)
        self.poke()

    def hold(self, jobs: Iterable[Job], user: str | None) -> list[Job]:
        """Keep queued jobs from starting or, without a user, let them start. Returns the jobs that changed."""
        changed = []
        for job in jobs:
            if job.status is Status.QUEUED and bool(job.held) != bool(user):
                changed.append(self.store.jobs.change(job.id, held=user, reason=None))
        self.poke()
        return changed

    def clean(self) -> None:
        """Remove what ended jobs left on runners that answer, and artifacts that were kept there long enough."""
        asks = disk_asks(self.context)
        for machine in self.context.fleet.now():
            name = machine.runner.name
            if (
                name in self.cleaning
                or self.context.tasks.resting(cleaning_of(name))
                or not clearable(self.context, machine)
            ):
                continue
            found = surplus(self.context, machine, asks)
            if found or self.store.jobs.to_discard(name):
                self.cleaning[name] = asyncio.create_task(self.cleaned(machine, found))

    async def cleaned(self, machine: Machine, found: Surplus) -> None:
        """Clean a machine once. After a failure, a later pass tries again."""
        name = machine.runner.name
        try:
            await self.context.tasks.attempt(cleaning_of(name), lambda: self.cleans(machine, found))
        finally:
            del self.cleaning[name]

    async def cleans(self, machine: Machine, found: Surplus) -> None:
        for job in self.store.jobs.to_discard(machine.runner.name):
            await clear(self.context, job.id)
        if await relieve(self.context, machine, found):
            self.poke()


def cleaning_of(runner: str) -> str:
    """The name of the task that cleans a runner."""
    return f"cleaning {runner}"
