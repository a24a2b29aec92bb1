"""Turns what a machine has of a job into the job's record, where that knows less."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec.structs import replace

from dstack.commands.machine.take_stock import FoundAttempt
from dstack.model.api import wire
from dstack.model.code.snapshot import trouble as snapshot_trouble
from dstack.model.job.attempts import ATTEMPTS_OWN
from dstack.model.job.job import Attempt, Job, LaunchRecord
from dstack.model.job.status import Status
from dstack.model.paths import attempt_number
from dstack.model.project.workflow import Workflow
from dstack.model.runner.host_context import folder_name
from dstack.model.text.units import rfc3339
from dstack.store.store import Store

BEFORE_LAUNCH = (Status.QUEUED, Status.PREPARING)


def launch_record(found: FoundAttempt) -> LaunchRecord | None:
    """Return what the launch of an attempt left; None if that is nothing, or can't be read. Its names become folders,
    so none may lead elsewhere."""
    try:
        left = wire.decode(found.record, LaunchRecord)
        for name in (left.run.name, left.job.workflow, left.run.snapshot.repo):
            folder_name(name)
        if snapshot_trouble(left.run.snapshot):
            return None
    except (ValueError, RecursionError):
        return None
    same = left.job.run == left.run.name and left.job.id == attempt_number(found.name)[0]
    return left if same else None


def adopt(store: Store, runner: str, found: FoundAttempt, aliases: Collection[str]) -> bool:
    """Bring the records up to an attempt that has begun on a runner, which is known as each of `aliases`; return
    whether that changed them."""
    try:
        job_id, number = attempt_number(found.name)
    except ValueError:
        return False
    job, left = store.jobs.get(job_id), launch_record(found)
    if not found.begun:
        return False
    if job is None:
        return left is not None and add(store, runner, found, left)
    if job.finished or job.attempt > number or (job.attempt == number and job.status not in BEFORE_LAUNCH):
        return False
    if job.attempt == number and job.status is Status.PREPARING and job.runner in aliases:
        return False
    catch_up(store, job, {**launched(store, runner, found, left.job if left else job), "attempt": number})
    return True


def add(store: Store, runner: str, found: FoundAttempt, left: LaunchRecord) -> bool:
    """Record an unknown job with its run. One that somebody deleted stays an orphan, as does one whose run's name was
    given again."""
    run = store.runs.get(left.run.name)
    if store.events.deleted(left.run.name) or (run and run.submitted_at != left.run.submitted_at):
        return False
    known = {workflow: job for workflow, job in left.job.dependencies.items() if store.jobs.get(job)}
    with store.database.transaction():
        if run is None:
            store.runs.add(replace(left.run, environment={}))
        own = launched(store, runner, found, left.job) | {"preempted_by": None, "yielding": False}
        # Without a key, no other job gets its result: the machine may have made up what it is the result of.
        made_up = {"key": "", "cached_from": None, "shares": None, "storages": ()}
        job = replace(left.job, definition=confined(left.job.definition), **made_up)
        store.jobs.add(replace(job, status=Status.RUNNING, dependencies=known, **own))
        values = store.secrets.names().keys() & set(left.job.definition.secrets)
        store.secrets.give(left.job.id, [store.secrets.require(name) for name in values])
    return True


def confined(definition: Workflow) -> Workflow:
    """Return the definition that a machine claims for a job that nobody else knows. The machine may have made it up, so
    it gets no secret for it, and no other machine runs it."""
    return replace(definition, secrets=(), registry_auth=None, retry=None, preemptible=False)


def launched(store: Store, runner: str, found: FoundAttempt, as_left: Job) -> dict[str, Any]:
    """Return the fields of a job whose attempt runs, or has run, on a runner."""
    size = store.logs.size(as_left.id)
    own = {name: getattr(as_left, name) for name in ATTEMPTS_OWN if name != "status"}
    return {
        **own,
        "reason": None,
        "runner": runner,
        "launching": True,
        "launch": found.origin,
        "started_at": rfc3339(found.began) if found.began else as_left.placed_at,
        "history": tuple(clipped(attempt, size) for attempt in as_left.history),
        "log_start": min(as_left.log_start, size),
    }


def clipped(attempt: Attempt, size: int) -> Attempt:
    """Return the attempt with no more of the log than there is."""
    return replace(attempt, log_start=min(attempt.log_start, size), log_end=min(attempt.log_end, size))


def catch_up(store: Store, job: Job, changes: dict[str, Any]) -> None:
    """Take a job to RUNNING through the moves that it made without its record."""
    with store.database.transaction():
        if job.status is Status.UPLOADING:
            job = store.jobs.change(job.id, status=Status.QUEUED)
        if job.status is Status.QUEUED:
            store.jobs.change(job.id, status=Status.PREPARING, runner=changes["runner"], gpus=changes["gpus"])
        store.jobs.change(job.id, status=Status.RUNNING, **changes)
