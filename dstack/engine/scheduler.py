"""The pass over the queue: which job starts now, on which runner, which one gives way, and why the others wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from dstack.engine.admission import Admission
from dstack.engine.context import Context
from dstack.engine.queue import Queue
from dstack.model.job.job import ExitCode, Job
from dstack.model.job.reasons import Reason
from dstack.model.job.status import Phase, Status
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import age
from dstack.scheduling import reasons
from dstack.scheduling.schedule import eligible, schedule
from dstack.scheduling.types import Machine, Placement, Schedule, Waiting

PATIENCE = 15.0
"""Seconds that a new job waits while no runner lets dstack in; then it fails."""
EXPLAINED = 1000
"""At most this many changed reasons are recorded in one pass; the next pass records the others."""


class Scheduler:
    """Places jobs, and has them driven by `drive`. `positions` are the places in the queue, from 1; `again_at` is when
    the next pass is due (monotonic, seconds), None if only another change can help."""

    def __init__(
        self, context: Context, drive: Callable[[str], None], doubt: Callable[[Job], list[str]] = lambda job: []
    ) -> None:
        self.store = context.store
        self.fleet = context.fleet
        self.drive = drive
        self.queue = Queue(context.store)
        self.admission = Admission(self.queue, doubt)
        self.positions: dict[str, int] = {}
        self.promises: dict[str, str] = {}
        self.again_at: float | None = None

    def run(self) -> None:
        self.again_at = None
        unfinished = self.store.jobs.unfinished()
        self.queue.forget(unfinished)
        waiting = self.queue.waiting(self.admission.admitted(unfinished), self.promises)
        self.again_at = self.admission.again_at
        machines = self.fleet.now()
        made = self.plan(waiting, machines, unfinished)
        self.positions = {job_id: place for place, job_id in enumerate(made.order, 1)}
        self.promises = made.promises
        for job_id, placement in made.placements.items():
            self.place(job_id, placement, made.choices.get(job_id))
        self.preempt(made.preemptions)
        self.explain(waiting, machines, made.reasons)

    def plan(self, waiting: Sequence[Waiting], machines: list[Machine], unfinished: Sequence[Job]) -> Schedule:
        """Decide where each of these jobs goes, next to the unfinished ones; record nothing."""
        leases, limit = self.queue.leases(unfinished), self.max_gpus_per_user
        return schedule(waiting, machines, leases, time.time(), max_gpus=limit)

    @property
    def max_gpus_per_user(self) -> int | None:
        """How many GPUs the jobs of one user may hold at once; None for no limit."""
        text = self.store.settings.get("max-gpus-per-user")
        return int(text) if text else None

    def place(self, job_id: str, placement: Placement, choice: str | None = None) -> None:
        self.store.jobs.change(
            job_id,
            status=Status.PREPARING,
            runner=placement.runner,
            gpus=placement.gpus,
            placed_at=rfc3339(time.time()),
            preparation=Phase.SHIPPING,
            progress=None,
            reason=None,
            choice=choice,
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

    def explain(self, waiting: Sequence[Waiting], machines: list[Machine], why: Mapping[str, Reason]) -> None:
        """Record why jobs wait, for at most EXPLAINED jobs whose reason changed. End those that can't hope."""
        jobs, explained, refused = self.store.jobs.current(), 0, self.fleet.refused
        with self.store.database.transaction():
            for item in waiting:
                reason = why.get(item.id)
                if reason is None:
                    continue
                job = jobs[item.id]
                if job.history and job.history[-1].preempted:
                    reason = reasons.after(job.history[-1].reason, reason)
                if refused and self.hopeless(job, item, machines):
                    self.admission.end(job, Status.FAILED, ExitCode.DSTACK, reasons.hopeless(reason))
                elif job.reason != reason:
                    self.store.jobs.change(job.id, reason=reason)
                    explained += 1
                if explained == EXPLAINED:
                    self.again_at = time.monotonic()
                    return

    def hopeless(self, job: Job, waiting: Waiting, machines: list[Machine]) -> bool:
        """Whether no runner that the job may use has let dstack in since the job was submitted."""
        waited = age(self.queue.run(job.run))
        if waited <= PATIENCE:
            return False
        names = [machine.runner.name for machine in eligible(waiting, machines)]
        return self.fleet.hopeless(names, waited - PATIENCE / 2)
