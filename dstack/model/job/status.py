"""The states of a job, and the transitions between them."""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Status(str, Enum):
    """The `status` of a job or run, as users see it."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    UPLOADING = "uploading"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def finished(self) -> bool:
        return self in FINISHED


class Phase(str, Enum):
    """What happens to a job, in more detail than its status: a job that is `preparing` is shipping, pulling or
    starting."""

    QUEUED = "queued"
    SHIPPING = "shipping"
    PULLING = "pulling"
    STARTING = "starting"
    RUNNING = "running"
    UPLOADING = "uploading"
    ENDED = "ended"


class Progress(Struct, frozen=True):
    """How far a transfer has come: `done` of `total`, in `bytes` or, for an image whose size is unknown, `layers`."""

    done: int
    total: int
    unit: str = "bytes"


UNSUCCESSFUL = frozenset({Status.FAILED, Status.STOPPED, Status.LOST})
FINISHED = UNSUCCESSFUL | {Status.DONE}

MOVES = {
    Status.QUEUED: {Status.PREPARING, *FINISHED},
    Status.PREPARING: {Status.QUEUED, Status.RUNNING, Status.UPLOADING, *FINISHED},
    Status.RUNNING: {Status.UPLOADING, *FINISHED},
    Status.UPLOADING: {Status.QUEUED, *FINISHED},
}
"""Allowed transitions. QUEUED to DONE: the result came from the cache, or it was stored before an older record was
restored, as PREPARING or RUNNING to DONE. PREPARING to QUEUED: the job needs another runner. UPLOADING to QUEUED: the
job is retried."""

SUMMARY = (
    *(Status.RUNNING, Status.UPLOADING, Status.PREPARING, Status.QUEUED),
    *(Status.FAILED, Status.LOST, Status.STOPPED, Status.DONE),
)
"""Which of its jobs' statuses a run has: the furthest unfinished one, or else the worst final one."""


def may_follow(before: Status, after: Status) -> bool:
    return after in MOVES.get(before, ())


def summary(statuses: list[Status]) -> Status:
    """Return the status of a run with these jobs."""
    return min(statuses, key=SUMMARY.index, default=Status.DONE)
