"""The states of a job, and which may follow which."""

from __future__ import annotations

from enum import Enum


class Status(str, Enum):
    """What users see as `status` of a job or run."""

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
        """Nothing follows this state."""
        return self in FINISHED


FINISHED = frozenset({Status.DONE, Status.FAILED, Status.STOPPED, Status.LOST})

MOVES: dict[Status, frozenset[Status]] = {
    Status.QUEUED: frozenset({Status.PREPARING, Status.DONE, Status.FAILED, Status.STOPPED}),
    Status.PREPARING: frozenset(
        {Status.QUEUED, Status.RUNNING, Status.UPLOADING, Status.FAILED, Status.STOPPED, Status.LOST}
    ),
    Status.RUNNING: frozenset({Status.UPLOADING, Status.FAILED, Status.STOPPED, Status.LOST}),
    Status.UPLOADING: frozenset({Status.QUEUED, Status.DONE, Status.FAILED, Status.STOPPED, Status.LOST}),
}
"""Legal moves. QUEUED to DONE is a job whose result came from the cache; PREPARING to QUEUED, one placed anew;
UPLOADING to QUEUED, one that is tried again."""


def may_follow(before: Status, after: Status) -> bool:
    """Whether a job in `before` may become `after`."""
    return after in MOVES.get(before, frozenset())


def summary(statuses: list[Status]) -> Status:
    """The status of a run made of jobs in these states: the worst end, or what is furthest while one is unfinished."""
    unfinished = [status for status in statuses if not status.finished]
    if unfinished:
        order = (Status.RUNNING, Status.UPLOADING, Status.PREPARING, Status.QUEUED)
        return min(unfinished, key=order.index)
    for end in (Status.FAILED, Status.LOST, Status.STOPPED):
        if end in statuses:
            return end
    return Status.DONE
