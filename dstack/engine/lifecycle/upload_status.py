"""What users read while a job's files are sent: the progress, and what a stop does."""

from __future__ import annotations

import time
from collections.abc import Callable

from dstack.engine.job_on_runner import JobOnRunner
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Phase, Progress, Status
from dstack.model.text.units import rfc3339, size_words

EVERY = 2.0
"""Seconds between two progress reports; a faster upload is not reported at all."""


class TransferProgress:
    """Reports now and then how much of a transfer is done: it is called with the bytes sent so far and the total."""

    def __init__(self, job_on_runner: JobOnRunner, clock: Callable[[], float] = time.monotonic) -> None:
        self.job_on_runner = job_on_runner
        self.clock = clock
        self.reported = clock()

    def due(self) -> bool:
        now = self.clock()
        if now - self.reported < EVERY:
            return False
        self.reported = now
        return True


class ShippingProgress(TransferProgress):
    """How much of the code, and then of the dependencies' artifacts, was sent to the runner."""

    def __call__(self, sent: int, total: int) -> None:
        if self.due():
            self.job_on_runner.report(preparation=Phase.SHIPPING, progress=Progress(sent, total))


class UploadProgress(TransferProgress):
    """How much of a job's artifacts is stored, and what keeps the rest from being stored."""

    failing_since = ""

    def __call__(self, stored: int, total: int, trouble: str = "") -> None:
        job = self.job_on_runner.job
        if not self.due() and not job.unreachable_since:
            return
        text = f"{size_words(stored)} of {size_words(total)} are stored"
        if job.stop:
            text = f"stopping: {text}; {to_drop(job)}"
        self.failing_since = (self.failing_since or rfc3339(time.time())) if trouble else ""
        code = ReasonCode.STORAGE_UNAVAILABLE if trouble else ReasonCode.UPLOADING
        if trouble:
            text += f"; since {self.failing_since}: {trouble}"
        reason, progress = Reason(code, text), Progress(stored, total)
        if job.status is Status.UPLOADING and (reason, progress) != (job.reason, job.progress):
            self.job_on_runner.report(reason=reason, progress=progress, unreachable_since=None)


def stopping(job: Job) -> Reason:
    """The reason of a job that is stopped while it uploads its artifacts."""
    if job.unreachable_since:
        return unreachable(job, job.unreachable_since, stop=True)
    return Reason(ReasonCode.STOPPING, f"stopping: its artifacts are being stored; {to_drop(job)}")


def unreachable(job: Job, since: str, trouble: str = "", *, stop: bool = False) -> Reason:
    """The reason of a job whose runner has not answered `since` then; `stop`: the user wants it to end."""
    why = f": {trouble}" if trouble else ""
    hint = f"; to end it anyway: dstack stop --abort {job.run}" if stop else ""
    return Reason(ReasonCode.RUNNER_UNREACHABLE, f"runner '{job.runner}' has not answered since {since}{why}{hint}")


def engine_silent(job: Job, engine: str, since: str, words: str, *, stop: bool = False) -> Reason:
    """The reason of a job whose runner answers, but whose container engine has not `since` then."""
    hint = f"; to end it anyway: dstack stop --abort {job.run}" if stop else ""
    return Reason(
        ReasonCode.RUNNER_UNREACHABLE, f"{engine} on {job.runner} has not answered since {since}: {words}{hint}"
    )


def to_drop(job: Job) -> str:
    """What to type to end without the artifacts."""
    return f"to discard them: dstack stop --abort {job.run}"


def stopped(job: Job) -> Reason:
    """The reason of a job that was stopped after its commands had ended."""
    code = f" with exit code {job.exit_code}" if job.exit_code else ""
    how = "it was lost before" if job.final_status is Status.LOST else f"its commands had ended{code}"
    why = f": {job.final_reason.text}" if job.final_reason else ""
    return job.stopped(more=f"{'' if job.stop_reason else ' while its artifacts were being stored'}; {how}{why}")
