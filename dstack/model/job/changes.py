"""What happened to a job, told from its record before and after."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dstack.model.job.job import Job
from dstack.model.job.status import Status


def happened(before: Job | None, after: Job) -> Iterator[str]:
    """Yield the kind of each event between two records of a job; before the first, it is None. A reason that is only
    worded differently, and progress, are no events."""
    if before is None or after.status is not before.status:
        yield "job.placed" if after.status is Status.PREPARING else f"job.{after.status.value}"
    elif getattr(after, "phase", None) != getattr(before, "phase", None):
        yield f"job.{after.status.value}"
    elif getattr(after, "reason_code", None) != getattr(before, "reason_code", None):
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
        "phase": getattr(job, "phase", None),
        "reason_code": getattr(job, "reason_code", None),
        "reason": text(job.reason),
        "gpus": job.gpus or None,
        "exit_code": job.exit_code if job.finished else None,
        "cached_from": job.cached_from,
        "held": job.held,
        "stop": job.stop,
        "previous": last and {"status": last.status, "exit_code": last.exit_code, "reason": text(last.reason)},
    }
    return {name: value for name, value in fields.items() if value is not None}


def text(reason: Any) -> str | None:
    """Return a reason as people read it."""
    words: str | None = getattr(reason, "text", reason)
    return words
