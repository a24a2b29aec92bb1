"""What a job that only stores its artifacts any more tells: how far that is, and what a stop does to it."""

from __future__ import annotations

import time
from collections.abc import Callable

from dstack.engine.placed import Placed
from dstack.model.job import Job
from dstack.model.quantities import decimal_words
from dstack.model.status import Status

EVERY = 2.0
"""Seconds between two changes of what is told; what is quicker is not told at all."""


class Progress:
    """Tells how much of what a job made is stored."""

    def __init__(self, placed: Placed, clock: Callable[[], float] = time.monotonic) -> None:
        self.placed = placed
        self.clock = clock
        self.told = clock()

    def __call__(self, stored: int, total: int) -> None:
        """So many bytes of all are stored."""
        job = self.placed.job
        if self.clock() - self.told < EVERY and not job.unreachable_since:
            return
        self.told = self.clock()
        reason = f"{decimal_words(stored)} of {decimal_words(total)} are stored"
        if job.stop:
            reason = f"stopping: {reason}; {to_drop(job)}"
        if job.status is Status.UPLOADING and reason != job.reason:
            self.placed.change(reason=reason, unreachable_since=None)


def stopping(job: Job) -> str:
    """What a job that stores its artifacts tells once it was stopped."""
    if job.unreachable_since:
        return f"{job.reason}; to end it all the same: dstack stop --abort {job.run}"
    return f"stopping: what it made is being stored; {to_drop(job)}"


def to_drop(job: Job) -> str:
    """What to type against waiting for artifacts."""
    return f"to drop that: dstack stop --abort {job.run}"


def stopped(job: Job) -> str:
    """Why a job was stopped whose commands had ended before."""
    code = f" with exit code {job.exit_code}" if job.exit_code else ""
    how = "it was lost before" if job.end is Status.LOST else f"its commands had ended{code}"
    why = f": {job.ending}" if job.ending else ""
    return f"stopped by dstack stop while its artifacts were stored; {how}{why}"
