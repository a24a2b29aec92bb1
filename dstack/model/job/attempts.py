"""Decides when an ended job is tried again, and what its next attempt starts with."""

from __future__ import annotations

from typing import Any

from msgspec.structs import fields

from dstack.model.job.job import Attempt, Job
from dstack.model.job.reasons import Reason, preempted
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339

ATTEMPTS_OWN = (
    *("status", "reason", "exit_code", "runner", "gpus", "image_digest", "launching", "launch", "final_status"),
    *("final_reason", "unreachable_since", "placed_at", "expired", "warned", "outran", "cause", "started_at"),
    *("preempted_by", "yielding", "progress"),
)
"""Fields of a job that a new attempt resets."""


def again(job: Job, exit_code: int | None) -> bool:
    """Whether a job that ended like this gets another attempt. A preempted attempt does not count."""
    if job.preempted_by and not job.stop:
        return True
    retry = job.definition.retry
    tried = job.attempt - sum(attempt.preempted for attempt in job.history)
    if retry is None or job.cause is None or job.stop or tried >= retry.attempts:
        return False
    causes = {job.cause, str(exit_code)} | ({"error"} if job.cause != "lost" else set())
    return not causes.isdisjoint(retry.on)


def following(
    job: Job, status: Status, *, exit_code: int | None, reason: Reason | None, log_size: int, now: float
) -> dict[str, Any]:
    """Return what to record for a job that is queued again after its attempt ended like this. `log_size`: bytes of the
    logs of all its attempts; `now`: Unix time in seconds."""
    ended = Attempt(
        number=job.attempt,
        status=status,
        exit_code=exit_code,
        reason=reason,
        runner=job.runner,
        gpus=job.gpus,
        started_at=job.started_at,
        finished_at=rfc3339(now),
        log_start=job.log_start,
        log_end=log_size,
        preempted=job.preempted_by is not None,
    )
    fresh = {field.name: field.default for field in fields(Job) if field.name in ATTEMPTS_OWN}
    fresh["reason"] = preempted(job.preempted_by) if job.preempted_by else None
    return {**fresh, "attempt": job.attempt + 1, "history": (*job.history, ended), "log_start": log_size}
