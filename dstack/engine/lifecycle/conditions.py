"""What users read while a step of a job is repeated, because something is in its way."""

from __future__ import annotations

import re

from dstack.engine.lifecycle.upload_status import engine_silent, unreachable
from dstack.errors import (
    CommandError,
    DstackError,
    EngineSilentError,
    HostUnreachableError,
    OtherServerError,
    StorageError,
    StorageUnavailableError,
)
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason, ReasonCode, failed_with
from dstack.model.job.status import Status

FULL = re.compile("(?i)no space left on device|disk quota exceeded|no disk of this machine has")
"""What programs say on a runner whose disk is full."""


def condition(job: Job, trouble: DstackError, since: str) -> Reason:
    """What to tell the user while a step is repeated."""
    if isinstance(trouble, EngineSilentError):
        return engine_silent(job, trouble.engine, since, trouble.words, stop=bool(job.stop))
    if isinstance(trouble, HostUnreachableError):
        return unreachable(job, since, trouble.message, stop=bool(job.stop))
    if isinstance(trouble, OtherServerError):
        return Reason(failed_with(trouble), f"{trouble.message}; {trouble.hint}")
    anyway = f"; to end it anyway: dstack stop --abort {job.run}"
    if isinstance(trouble, StorageUnavailableError) and job.status is not Status.UPLOADING:
        what = "only it knows how the job ended" if job.status is Status.RUNNING else "the job starts once it is back"
        text = f"the storage has been unavailable since {since}; {what}: {trouble.message}"
        return Reason(failed_with(trouble), f"{text}{anyway if job.stop else ''}")
    if full(trouble):
        uploads = job.status is Status.UPLOADING
        so = ", so its artifacts can't be collected" if uploads else ""
        text = f"the disk of {job.runner} has been full since {since}{so}; to see what helps: dstack runners check"
        return Reason(ReasonCode.DISK_FULL, f"{text} {job.runner}{anyway if uploads or job.stop else ''}")
    what = ""
    if isinstance(trouble, StorageError):
        launch = job.status is Status.PREPARING
        what = "the launch has waited for the artifact store" if launch else "the artifacts could not be stored"
        what = f"{what} since {since}: "
    return Reason(failed_with(trouble), f"{what}{trouble.message}{anyway if job.stop or what else ''}")


def failure(job: Job, trouble: DstackError) -> Reason:
    """Why a job can't be launched."""
    if full(trouble):
        text = f"the disk of {job.runner} is full; to see what helps: dstack runners check {job.runner}"
        return Reason(ReasonCode.DISK_FULL, text)
    return Reason(failed_with(trouble), f"{trouble.message}; {trouble.hint}" if trouble.hint else trouble.message)


def full(trouble: DstackError) -> bool:
    """Whether a command failed because the runner's disk is full; not the server's, nor the storage."""
    return isinstance(trouble, CommandError) and bool(FULL.search(trouble.stderr))
