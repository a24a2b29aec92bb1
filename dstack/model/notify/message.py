"""What a message says, whatever its form. Programs compare its codes, people read its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from dstack.model.job.job import Job, Run, decisive
from dstack.model.job.status import Status, summary
from dstack.model.project.workflow import LongWait, Workflow
from dstack.model.text.units import seconds, span, took_words
from dstack.model.text.untrusted import NAME, clean_line

REASON = 1000
"""Characters of a reason."""
DEFAULT = frozenset({Status.FAILED, Status.LOST})
TEST = "test"
WAITING = "run.waiting"


class MessageFacts(Struct, frozen=True, kw_only=True):
    """What a message is about. `reason` is for people, `reason_code` for programs; `duration` is in seconds, from the
    start of the first job; `waited` in seconds; `command` is what to type to see more."""

    text: str
    command: str
    run: str | None = None
    workflow: str | None = None
    user: str | None = None
    status: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    reason_code: str | None = None
    job: str | None = None
    runner: str | None = None
    submitted_at: str | None = None
    finished_at: str | None = None
    duration: float | None = None
    waited: float | None = None
    trigger: str | None = None


class Message(Struct, frozen=True, kw_only=True):
    """A message. `id` is the same in each try to send it, and to all targets. `type` is `run.failed` and so on. As JSON
    it is the body of a webhook."""

    id: str
    type: str
    timestamp: str
    data: MessageFacts

    @property
    def urgent(self) -> bool:
        """Whether something went wrong."""
        return self.data.status in (Status.FAILED, Status.LOST) or self.type.startswith("trigger.")


def wanted(workflow: Workflow | None, status: Status) -> bool:
    """Whether a run of this workflow that ended so is to be told."""
    if workflow is None or workflow.notify is None:
        return status in DEFAULT
    return status.value in workflow.notify


def patience(workflow: Workflow | None) -> float | None:
    """Return after how many seconds in the queue a run of this workflow is to be told; None for never."""
    spans = [span(entry.waiting) for entry in (workflow and workflow.notify) or () if isinstance(entry, LongWait)]
    return min(spans, default=None)


def named(run: Run) -> Workflow | None:
    """Return the workflow that the run was submitted for. Its `notify` counts for the whole run."""
    return next((workflow for workflow in run.workflows if workflow.name == run.workflow), None)


def ended(run: Run, jobs: Sequence[Job]) -> MessageFacts:
    """Return what there is to say about a run that has ended."""
    status = summary([job.status for job in jobs])
    job = decisive(list(jobs)) or next((job for job in jobs if job.workflow == run.workflow), jobs[-1])
    begun = min((each.started_at for each in jobs if each.started_at and not each.cached_from), default=None)
    finished = max((each.finished_at for each in jobs if each.finished_at), default=None)
    duration = round(seconds(finished) - seconds(begun), 3) if begun and finished else None
    code = 0 if status is Status.DONE else job.exit_code
    at = f" on {job.runner}" if job.runner else ""
    after = f" after {took_words(duration)}" if duration is not None else ""
    with_code = f" with exit code {code}" if status is Status.FAILED and code is not None else ""
    return MessageFacts(
        **about(run),
        text=f"{run.workflow} ({run.name}) {VERBS[status]}{with_code}{at}{after}",
        command=f"dstack {'logs' if status is Status.FAILED else 'runs'} {run.name}",
        status=status.value,
        exit_code=code,
        reason=reason_of(job),
        reason_code=job.reason_code,
        job=job.id,
        runner=job.runner,
        finished_at=finished,
        duration=duration,
    )


VERBS = {Status.DONE: "is done", Status.FAILED: "failed", Status.STOPPED: "was stopped", Status.LOST: "was lost"}


def waits(run: Run, jobs: Sequence[Job], since: float, now: float) -> MessageFacts:
    """Return what there is to say about a run that has waited in the queue since a time, in seconds."""
    job = next((job for job in jobs if not job.finished and job.reason), None)
    waited = round(now - since, 3)
    return MessageFacts(
        **about(run),
        text=f"{run.workflow} ({run.name}) has been waiting in the queue for {took_words(waited)}",
        command=f"dstack runs {run.name}",
        status=Status.QUEUED.value,
        reason=reason_of(job) if job else None,
        reason_code=job.reason_code if job else None,
        job=job.id if job else None,
        waited=waited,
    )


def about(run: Run) -> dict[str, Any]:
    """Return what is the same in all messages about a run."""
    user = clean_line(run.user, NAME)
    return {"run": run.name, "workflow": run.workflow, "user": user, "submitted_at": run.submitted_at}


def reason_of(job: Job) -> str | None:
    """Return a job's reason, which may quote a machine."""
    return clean_line(f"{job.workflow}: {job.reason.text}", REASON) if job.reason else None


def queued_since(run: Run, jobs: Sequence[Job]) -> float | None:
    """Return since when, in seconds, nothing of an unfinished run has happened but waiting in the queue; None if
    something goes on."""
    if summary([job.status for job in jobs]) is not Status.QUEUED:
        return None
    attempts = [attempt.finished_at for job in jobs for attempt in job.history]
    return max(map(seconds, [run.submitted_at, *attempts, *(job.finished_at for job in jobs if job.finished_at)]))
