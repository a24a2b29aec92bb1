"""Decides which queued jobs may be placed, by what users want and by what has become of other jobs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from dstack.engine.queue import Queue
from dstack.model.job.job import ExitCode, Job
from dstack.model.job.reasons import Reason
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import age
from dstack.scheduling import reasons


class Obstacle(Struct, frozen=True):
    """What keeps a queued job from being placed; for good if it `ends` the job."""

    reason: Reason
    ends: bool = False
    exit_code: int | None = None


class Admission:
    """Ends the queued jobs that can never start, and explains why others must wait. `again_at` is when to look again
    (monotonic, seconds), None if only another change can help. `doubt` says which runners may have a job without its
    record saying so."""

    def __init__(self, queue: Queue, doubt: Callable[[Job], list[str]]) -> None:
        self.queue = queue
        self.doubt = doubt
        self.store = queue.store
        self.ready: set[str] = set()
        self.again_at: float | None = None

    def admitted(self, unfinished: Sequence[Job]) -> list[Job]:
        """The queued jobs that may be placed."""
        self.again_at = None
        self.ready &= self.store.jobs.current().keys()
        jobs = [job for job in unfinished if job.status is Status.QUEUED and self.admit(job)]
        overdue = {run for run in {job.run for job in jobs} if self.withdraw_overdue(run)}
        return [job for job in jobs if job.run not in overdue]

    def admit(self, job: Job) -> bool:
        """Whether a queued job may be placed. Otherwise record why it waits, or end it if it can never start."""
        if job.shares and not (job.stop or job.held):
            job = self.resolve_sharing(job)
        if job.finished:
            return False
        obstacle = self.obstacle(job)
        if obstacle is None:
            self.ready.add(job.id)
        elif obstacle.ends:
            self.end(job, Status.STOPPED, obstacle.exit_code, obstacle.reason)
            self.again_at = time.monotonic()
        elif obstacle.reason != job.reason:
            self.store.jobs.change(job.id, reason=obstacle.reason)
        return obstacle is None

    def obstacle(self, job: Job) -> Obstacle | None:
        if unasked := self.doubt(job):
            return Obstacle(reasons.restored(unasked))
        if job.stop:
            return Obstacle(job.stopped(reasons.STOPPED_EARLY), ends=True, exit_code=ExitCode.STOPPED)
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
        """If the job whose result this one shares has ended, take its result, share with another one, or share none."""
        other = self.store.jobs.get(job.shares or "")
        if other and not other.finished and not other.stop:
            return job
        if other and other.status is Status.DONE:
            self.again_at = time.monotonic()
            result = result_of(other, rfc3339(time.time()))
            return self.store.jobs.change(job.id, shares=None, why=f"shared with {other.run}", **result)
        ended = f"{other.run} {reasons.ENDED.get(other.status, 'was stopped')}" if other else "it was removed"
        why = f"the same job was already in progress, but {ended}"
        return self.store.jobs.change(job.id, shares=self.same_as(job), why=why)

    def same_as(self, job: Job) -> str | None:
        """Another unfinished job whose result this one can share; None for the first of several that wait for one."""
        others = (other for other in self.store.jobs.unfinished() if other.key == job.key and other.id != job.id)
        return next((other.id for other in others if other.shares is None and not (other.stop or other.held)), None)

    def withdraw_overdue(self, name: str) -> bool:
        """End the jobs of a run that has waited too long; return whether it has. One that has begun may wait."""
        run = self.queue.run(name)
        if run.timeout is None:
            return False
        jobs = [job for job in self.store.jobs.of(name) if not job.cached_from]
        if any(job.status is not Status.QUEUED or job.history for job in jobs):
            return False
        left = run.timeout - age(run)
        if left > 0:
            deadline = time.monotonic() + left
            self.again_at = min(deadline, self.again_at or deadline)
            return False
        for job in jobs:
            self.end(job, Status.STOPPED, ExitCode.WITHDRAWN, reasons.withdrawn(run.timeout, job.reason))
        return True

    def end(self, job: Job, status: Status, exit_code: int | None, reason: Reason) -> None:
        """End a job that never had a runner."""
        now = rfc3339(time.time())
        self.store.jobs.change(job.id, status=status, exit_code=exit_code, reason=reason, finished_at=now)


def result_of(job: Job, now: str) -> dict[str, Any]:
    """The fields of another job that takes this one's result now."""
    return {
        "status": Status.DONE,
        "cached_from": job.source,
        "exit_code": 0,
        "reason": None,
        "image_digest": job.image_digest,
        "finished_at": now,
        "files": job.files,
        "bytes": job.bytes,
    }
