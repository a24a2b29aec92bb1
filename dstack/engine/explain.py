"""Why a job is where it is, from every angle: its inputs, the runners, what it printed, and what to do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from dstack.engine.engine import Engine
from dstack.model.api.jobs import CacheView
from dstack.model.api.why import Advice, HolderView, InputChange, JobWhy, PlacedWhy, RunnerWhy
from dstack.model.job import cache_key
from dstack.model.job.job import Job
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.scheduling.angles import Angle, advice, angles, left_over
from dstack.scheduling.reasons import CHOICES

FAILED = (Status.FAILED, Status.LOST)
CHANGES = 200
"""Most changed inputs that are listed."""
NEXT: dict[str, tuple[str, str | None]] = {
    ReasonCode.HELD: ("somebody holds it", "dstack release {run}"),
    ReasonCode.WAITING_FOR_DEPENDENCY: ("a job that it needs has not ended", "dstack runs {run}"),
    ReasonCode.NO_RUNNER_KNOWN: ("no machine has been added", "dstack runners add HOST"),
    ReasonCode.USER_GPU_LIMIT: ("jobs of yours that end make room", "dstack runs --mine"),
    ReasonCode.OUT_OF_MEMORY: ("give it more memory: resources: {{memory: ...}} in workflows.yaml", None),
    ReasonCode.DISK_FULL: ("free space on the runner", "dstack prune --caches --images"),
    ReasonCode.MAX_DURATION: ("raise max-duration in workflows.yaml, or store what it makes with `sync`", None),
    ReasonCode.SECRET_MISSING: ("set the secret", "dstack secrets set NAME"),
    ReasonCode.REGISTRY_LOGIN: ("give the workflow a registry-auth, whose password is a secret", None),
    ReasonCode.IMAGE_NOT_FOUND: ("check the name of the image in workflows.yaml", None),
    ReasonCode.ARTIFACT_MISSING: ("see what it wrote, and compare `artifacts` in workflows.yaml", "dstack logs {run}"),
    ReasonCode.EXIT_CODE: ("see its whole log", "dstack logs {run}"),
    ReasonCode.RUNNER_UNREACHABLE: ("see why the runner does not answer", "dstack runners check {runner}"),
    ReasonCode.GPU_DRIVER: ("see what is wrong with the runner's GPUs", "dstack runners check {runner}"),
}
"""What to do about a reason, and the command for it."""


def why(engine: Engine, queued: Queued, job: Job, log: str) -> JobWhy:
    """Return everything that is known about it. `log` are the last lines that it printed."""
    job = engine.context.told(job)
    found, offers = queued.seen(job)
    last, changes = compared(engine, job)
    return JobWhy(
        job=job.id,
        workflow=job.workflow,
        status=job.status,
        phase=job.phase,
        reason=job.reason.text if job.reason else None,
        reason_code=job.reason_code,
        exit_code=job.exit_code if job.finished else None,
        cache=CacheView(job.cached_from is not None, job.why),
        compared_with=last.run if last else None,
        changes=changes[:CHANGES],
        placed=placed(job),
        runners=[runner_why(angle) for angle in found],
        log=log if job.status in FAILED else "",
        advice=[*next_steps(job), *offers],
    )


def compared(engine: Engine, job: Job) -> tuple[Job | None, list[InputChange]]:
    """Return the job before it that was done, and the inputs that differ."""
    store = engine.store
    last = store.jobs.last_done_before(job, store.runs.require(job.run).snapshot.repo)
    if last is None:
        return None, []
    before, after = store.cache_keys.components(last.key), store.cache_keys.components(job.key)
    return last, [
        InputChange(name, readable(name, before.get(name)), readable(name, after.get(name)), text)
        for name, text in cache_key.changes(before, after)
    ]


def readable(name: str, value: str | None) -> str | None:
    """Return a component as its author wrote it: a variable's value is stored as JSON."""
    if value is None or not name.startswith("variable "):
        return value
    text = json.loads(value)
    return "null" if text is None else str(text)


def placed(job: Job) -> PlacedWhy | None:
    if job.runner is None:
        return None
    return PlacedWhy(job.runner, job.placed_at, job.choice, CHOICES.get(job.choice or ""))


class Queued:
    """The jobs that wait for a runner, and what the runners have left: looked at once for all jobs of an answer."""

    def __init__(self, engine: Engine) -> None:
        scheduler, unfinished = engine.scheduler, engine.store.jobs.unfinished()
        waiting = scheduler.queue.waiting([job for job in unfinished if job.id in scheduler.positions], {})
        self.now = time.time()
        self.waiting = {each.id: each for each in waiting}
        leases = scheduler.queue.leases(unfinished)
        self.runners = left_over(waiting, engine.context.fleet.now(), leases, self.now)

    def seen(self, job: Job) -> tuple[list[Angle], list[Advice]]:
        """Return what is in the job's way on each runner, and what would help; nothing unless it waits for one."""
        mine = self.waiting.get(job.id)
        if mine is None:
            return [], []
        found = angles(mine, self.runners, self.now)
        return found, list(advice(mine, found))


def runner_why(angle: Angle) -> RunnerWhy:
    leases = angle.one.leases if angle.reason and angle.reason.code is ReasonCode.RUNNER_BUSY else []
    holders = [HolderView(lease.run, lease.user, lease.job, list(lease.gpus), rfc3339(lease.since)) for lease in leases]
    reason = angle.reason
    return RunnerWhy(angle.one.name, reason.code if reason else None, reason.text if reason else None, holders)


def next_steps(job: Job) -> Iterator[Advice]:
    """Yield what to do about the job's reason."""
    if job.status is Status.DONE:
        return
    values = {"run": job.run, "runner": job.runner or "NAME"}
    if job.reason_code in NEXT:
        text, command = NEXT[job.reason_code]
        yield Advice(text.format(**values), command and command.format(**values))
    if job.finished:
        yield Advice("run the same code again", f"dstack run --from {job.run}")
