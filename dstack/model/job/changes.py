"""What happened to a job, told from its record before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dstack.model.job.job import Attempt, Job
from dstack.model.job.reasons import reason_code
from dstack.model.job.status import Status


def happened(before: Job | None, after: Job) -> Iterator[str]:
    """Yield the kind of each event between two records of a job; before the first, it is None. A reason that is only
    worded differently, and progress, are no events."""
    if before is None or after.status is not before.status:
        yield "job.placed" if after.status is Status.PREPARING else f"job.{after.status.value}"
    elif after.phase is not before.phase:
        yield f"job.{after.status.value}"
    elif after.reason_code is not before.reason_code:
        yield "job.reason"
    if before is not None and after.held != before.held:
        yield "job.held" if after.held else "job.released"
    if before is not None and after.stop and after.stop != before.stop:
        yield "job.stop-requested"


def details(job: Job) -> dict[str, Any]:
    """Return what an event says about a job: the fields that are set. `previous` is how the attempt before ended."""
    last = job.history[-1] if job.history and job.status is Status.QUEUED else None
    fields = {
        "workflow": job.workflow,
        "attempt": job.attempt,
        "phase": job.phase,
        "reason_code": job.reason_code,
        "reason": job.reason and job.reason.text,
        "gpus": job.gpus or None,
        "exit_code": job.exit_code if job.finished else None,
        "cached_from": job.cached_from,
        "held": job.held,
        "stop": job.stop,
        "previous": last and _ended(last),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _ended(attempt: Attempt) -> dict[str, Any]:
    code, text = reason_code(attempt.status, attempt.reason), attempt.reason and attempt.reason.text
    return {"status": attempt.status, "exit_code": attempt.exit_code, "reason_code": code, "reason": text}
