"""The engine: one drive per job, and a scheduling pass whenever something changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from dstack.engine.context import Context
from dstack.engine.lifecycle.drive import Drive
from dstack.engine.lifecycle.upload_status import stopping
from dstack.engine.queue import Queue
from dstack.engine.retention.clear import clear
from dstack.engine.retention.disk_pressure import Surplus, clearable, disk_asks, relieve, surplus
from dstack.errors import DstackError
from dstack.model.job.job import ExitCode, Job
from dstack.model.job.reasons import Reason
from dstack.model.job.status import Phase, Status
from dstack.model.text.units import rfc3339, seconds
from dstack.scheduling import reasons
from dstack.scheduling.schedule import eligible, schedule
from dstack.scheduling.types import Machine, Placement, Waiting
from dstack.store.tables.events import SERVER, acting

PATIENCE = 15.0
"""Seconds that a new job waits while every runner refuses SSH; then it fails."""
EXPLAINED = 1000
"""At most this many changed reasons are recorded in one pass; the next pass records the others."""
TICK = 5.0
"""Seconds between two passes when nothing happens."""

log = logging.getLogger("dstack.engine")


class Obstacle(Struct, frozen=True):
    """What keeps a queued job from being placed; for good if it `ends` the job."""

    reason: Reason
    ends: bool = False
    exit_code: int | None = None


class Engine:
    """Owns the drives. All its state is in the store, so it may be killed at any point and started again."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.store = context.store
        self.drives: dict[str, asyncio.Task[None]] = {}
        self.cleaning: dict[str, asyncio.Task[None]] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.wake = asyncio.Event()
        self.queue = Queue(context.store)
        self.positions: dict[str, int] = {}
        self.promises: dict[str, str] = {}
        self.ready: set[str] = set()
        self.deadline: float | None = None

    def start(self) -> None:
        """Resume every unfinished job where it was, and start scheduling."""
        for job in self.store.jobs.unfinished():
            if job.status is not Status.QUEUED:
                self.drive(job.id)
        self.context.unsure |= self.store.jobs.aborted_on()
        for coroutine in (self.loop(), self.context.fleet.watch()):
            self.background(coroutine)

    def background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run this until the engine closes."""
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def close(self) -> None:
        """Stop driving. Running jobs are left alone."""
        tasks = [*self.tasks, *self.drives.values(), *self.cleaning.values(), *self.context.spares]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def poke(self) -> None:
        """Run a scheduling pass soon: something changed that may let a job start."""
        self.wake.set()

    async def loop(self) -> None:
        """Run a scheduling pass whenever something changes."""
        while True:
            self.wake.clear()
            try:
                self.schedule()
                self.clean()
            except Exception:
                log.exception("the scheduling pass failed; the next one tries again")
            left = TICK if self.deadline is None else max(0.05, min(TICK, self.deadline - time.time()))
            try:
                await asyncio.wait_for(self.wake.wait(), left)
            except asyncio.TimeoutError:
                continue

    def schedule(self) -> None:
        """Run one pass over the queue."""
        unfinished = self.store.jobs.unfinished()
        self.queue.forget(unfinished)
        self.ready &= self.store.jobs.current().keys()
        self.deadline = None
        queued = [job for job in unfinished if job.status is Status.QUEUED and self.admit(job)]
        queued = self.withdraw_overdue(queued)
        machines = self.context.fleet.now()
        waiting = self.queue.waiting(queued, self.promises)
        leases = self.queue.leases(unfinished)
        made = schedule(waiting, machines, leases, time.time(), max_gpus=self.max_gpus_per_user)
        self.positions = {job_id: place for place, job_id in enumerate(made.order, 1)}
        self.promises = made.promises
        for job_id, placement in made.placements.items():
            self.place(job_id, placement)
        self.preempt(made.preemptions)
        self.explain_all(waiting, machines, made.reasons)

    def explain_all(self, waiting: Sequence[Waiting], machines: list[Machine], why: Mapping[str, Reason]) -> None:
        """Record why jobs wait, for at most EXPLAINED jobs whose reason changed."""
        jobs, explained = self.store.jobs.current(), 0
        refused = self.context.fleet.refused
        with self.store.database.transaction():
            for item in waiting:
                reason = why.get(item.id)
                if reason is None:
                    continue
                job = jobs[item.id]
                reason = reasons.after(job.history[-1].reason, reason) if gave_way(job) else reason
                if refused and self.hopeless(job, item, machines):
                    self.end(job, Status.FAILED, exit_code=ExitCode.DSTACK, reason=reasons.hopeless(reason))
                elif job.reason != reason:
                    self.explain(job, reason)
                    explained += 1
                if explained == EXPLAINED:
                    self.deadline = time.time()
                    return

    @property
    def max_gpus_per_user(self) -> int | None:
        """How many GPUs the jobs of one user may hold at once; None for no limit."""
        text = self.store.settings.get("max-gpus-per-user")
        return int(text) if text else None

    def withdraw_overdue(self, jobs: Sequence[Job]) -> list[Job]:
        """Withdraw the runs that have waited too long; return the jobs of the others."""
        now, overdue = time.time(), set()
        for name in {job.run for job in jobs}:
            deadline = self.leaves_queue_at(name)
            if deadline is None:
                continue
            if now < deadline:
                self.deadline = min(deadline, self.deadline or deadline)
            else:
                self.withdraw(name)
                overdue.add(name)
        return [job for job in jobs if job.run not in overdue]

    def leaves_queue_at(self, run: str) -> float | None:
        """When the run is withdrawn (wall clock, seconds); None if it has no timeout or one of its jobs has started."""
        recorded = self.queue.run(run)
        if recorded.timeout is None:
            return None
        if any(job.status is not Status.QUEUED or job.history for job in self.uncached(run)):
            return None
        return seconds(recorded.submitted_at) + recorded.timeout

    def withdraw(self, run: str) -> None:
        """End the jobs of a run that has waited too long."""
        timeout = self.queue.run(run).timeout or 0
        for job in self.uncached(run):
            reason = reasons.withdrawn(timeout, job.reason)
            self.end(job, Status.STOPPED, exit_code=ExitCode.WITHDRAWN, reason=reason)

    def uncached(self, run: str) -> list[Job]:
        """The jobs of a run whose results don't come from the cache."""
        return [job for job in self.store.jobs.of(run) if not job.cached_from]

    def admit(self, job: Job) -> bool:
        """Let a queued job be placed. Otherwise record why it waits, or end it if it can never start."""
        if job.shares and not (job.stop or job.held):
            job = self.resolve_sharing(job)
        if job.finished:
            return False
        obstacle = self.obstacle(job)
        if obstacle is None:
            self.ready.add(job.id)
        elif obstacle.ends:
            self.end(job, Status.STOPPED, exit_code=obstacle.exit_code, reason=obstacle.reason)
            self.poke()
        else:
            self.explain(job, obstacle.reason)
        return obstacle is None

    def obstacle(self, job: Job) -> Obstacle | None:
        """What keeps a queued job from being placed, whatever the runners have free."""
        if job.stop:
            return Obstacle(reasons.STOPPED_EARLY, ends=True, exit_code=ExitCode.STOPPED)
        if job.held:
            return Obstacle(reasons.held(job.held, job.run))
        if job.id in self.ready:
            return None
        if job.shares:
            other = self.store.jobs.require(job.shares)
            return Obstacle(reasons.same_job(other.run, other.status))
        sources = [self.store.jobs.require(source) for source in job.dependencies.values()]
        broken = [source for source in sources if source.finished and source.status is not Status.DONE]
        if broken:
            return Obstacle(reasons.dependency_ended(broken[0].workflow, broken[0].status), ends=True)
        pending = [source.workflow for source in sources if not source.finished]
        return Obstacle(reasons.dependencies_pending(pending)) if pending else None

    def resolve_sharing(self, job: Job) -> Job:
        """If the job whose result this one shares has ended, take its result, share with another one, or let this one
        run itself."""
        other = self.store.jobs.get(job.shares or "")
        if other and not other.finished and not other.stop:
            return job
        if other and other.status is Status.DONE:
            return self.take_result(job, other)
        ended = f"{other.run} {reasons.ENDED.get(other.status, 'was stopped')}" if other else "it was removed"
        why = f"the same job was already in progress, but {ended}"
        return self.store.jobs.change(job.id, shares=self.same_as(job), why=why)

    def take_result(self, job: Job, other: Job) -> Job:
        """End a queued job with the result of another one."""
        done = self.store.jobs.change(
            job.id,
            status=Status.DONE,
            cached_from=other.source,
            shares=None,
            why=f"shared with {other.run}",
            reason=None,
            exit_code=0,
            image_digest=other.image_digest,
            finished_at=rfc3339(time.time()),
            files=other.files,
            bytes=other.bytes,
        )
        self.poke()
        return done

    def same_as(self, job: Job) -> str | None:
        """Another unfinished job whose result this one can share. Of several jobs that waited for the same result, the
        first one runs and the others wait for it."""
        others = (other for other in self.store.jobs.unfinished() if other.key == job.key and other.id != job.id)
        return next((other.id for other in others if other.shares is None and not (other.stop or other.held)), None)

    def place(self, job_id: str, placement: Placement) -> None:
        """Give a job its runner."""
        self.store.jobs.change(
            job_id,
            status=Status.PREPARING,
            runner=placement.runner,
            gpus=placement.gpus,
            placed_at=rfc3339(time.time()),
            preparation=Phase.SHIPPING,
            progress=None,
            reason=None,
        )
        self.drive(job_id)

    def preempt(self, victims: Mapping[str, str]) -> None:
        """Make running jobs give way, each to the job that it is mapped to."""
        with self.store.database.transaction():
            for job_id, winner in victims.items():
                by = self.queue.run(self.store.jobs.require(winner).run)
                self.store.jobs.change(job_id, preempted_by=f"{by.user}'s {by.name}")
        for job_id in victims:
            self.drive(job_id)

    def hopeless(self, job: Job, waiting: Waiting, machines: list[Machine]) -> bool:
        """Whether every runner that the job may use refuses SSH and has done so since the job was submitted."""
        submitted = seconds(job.submitted_at)
        if time.time() - submitted <= PATIENCE:
            return False
        names = [machine.runner.name for machine in eligible(waiting, machines)]
        return self.context.fleet.hopeless(names, submitted + PATIENCE / 2)

    def explain(self, job: Job, reason: Reason) -> None:
        if job.reason != reason:
            self.store.jobs.change(job.id, reason=reason)

    def end(self, job: Job, status: Status, *, exit_code: int | None, reason: Reason) -> None:
        """End a job that never had a runner."""
        now = rfc3339(time.time())
        self.store.jobs.change(job.id, status=status, exit_code=exit_code, reason=reason, finished_at=now)

    def drive(self, job_id: str) -> None:
        """Start a drive for the job; it replaces a drive that is already running."""
        before = self.drives.pop(job_id, None)
        task = asyncio.create_task(self.driven(job_id, before))
        self.drives[job_id] = task

    async def driven(self, job_id: str, before: asyncio.Task[None] | None) -> None:
        if before:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        with acting(SERVER):  # not the user whose request started the task
            await Drive(self.context, job_id).run()
        if self.drives.get(job_id) is asyncio.current_task():
            del self.drives[job_id]
        self.poke()

    def stop(self, jobs: Iterable[Job], *, abort: bool) -> None:
        """Record the stop for each unfinished job, then act on it."""
        for job in jobs:
            if job.finished or (job.stop and not abort):
                continue
            storing = job.status is Status.UPLOADING and not abort
            reason = stopping(job) if storing else job.reason
            self.store.jobs.change(job.id, stop="abort" if abort else "stop", reason=reason)
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
            if name in self.cleaning or not clearable(self.context, machine):
                continue
            found = surplus(self.context, machine, asks)
            if found.any or self.store.jobs.to_discard(name):
                self.cleaning[name] = asyncio.create_task(self.cleaned(machine, found))

    async def cleaned(self, machine: Machine, found: Surplus) -> None:
        """Remove what ended jobs left on a runner, and free its disk."""
        name = machine.runner.name
        try:
            for job in self.store.jobs.to_discard(name):
                await clear(self.context, job.id)
            if await relieve(self.context, machine, found):
                self.poke()
        except DstackError as trouble:
            log.warning("%s: could not clean up: %s; the next pass tries again", name, trouble.message)
        finally:
            del self.cleaning[name]


def gave_way(job: Job) -> bool:
    """Whether the job is queued because another one preempted it."""
    return bool(job.history) and job.history[-1].preempted
