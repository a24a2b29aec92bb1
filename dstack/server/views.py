"""Records as users see them."""

from __future__ import annotations

from collections.abc import Mapping

from dstack.model.api.jobs import ArtifactsView, AttemptView, CacheView, JobView
from dstack.model.api.runs import RepoView, RunView
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Attempt, Job, Run
from dstack.model.job.reasons import reason_code
from dstack.model.job.status import Status, summary


def job_view(job: Job, position: int | None = None) -> JobView:
    """Return a job as users see it. `position` is its position in the queue."""
    return JobView(
        id=job.id,
        run=job.run,
        workflow=job.workflow,
        status=job.status,
        phase=job.phase,
        progress=job.progress,
        exit_code=job.exit_code if job.finished else None,
        reason=job.reason.text if job.reason else None,
        reason_code=job.reason_code,
        cached=job.cached_from is not None,
        cached_from=job.cached_from,
        cache=CacheView(job.cached_from is not None, job.why),
        runner=job.runner,
        gpus=list(job.gpus),
        image=job.image,
        image_digest=job.image_digest,
        attempt=job.attempt,
        submitted_at=job.submitted_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        artifacts=ArtifactsView(job.files, job.bytes),
        priority=job.priority,
        position=position if job.status is Status.QUEUED else None,
        attempts=[attempt_view(attempt) for attempt in job.history],
        log_start=job.log_start,
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """Return an earlier attempt as users see it."""
    return AttemptView(
        number=attempt.number,
        status=attempt.status,
        exit_code=attempt.exit_code,
        reason=attempt.reason.text if attempt.reason else None,
        reason_code=reason_code(attempt.status, attempt.reason),
        runner=attempt.runner,
        gpus=list(attempt.gpus),
        started_at=attempt.started_at,
        finished_at=attempt.finished_at,
        log_start=attempt.log_start,
        log_end=attempt.log_end,
    )


def run_view(run: Run, jobs: list[Job], positions: Mapping[str, int] | None = None) -> RunView:
    """Return a run as users see it, with the status, exit code and reason of the job that decided it. `positions`
    holds the positions in the queue by job id."""
    status = summary([job.status for job in jobs])
    deciding = decisive(jobs) if status.finished else None
    reasoned = deciding or next((job for job in jobs if not job.finished and job.reason), None)
    return RunView(
        name=run.name,
        workflow=run.workflow,
        user=run.user,
        status=status,
        exit_code=(deciding.exit_code if deciding else 0) if status.finished else None,
        reason=f"{reasoned.workflow}: {reasoned.reason.text}" if reasoned and reasoned.reason else None,
        reason_code=reasoned.reason_code if reasoned else None,
        submitted_at=run.submitted_at,
        finished_at=max((job.finished_at or "" for job in jobs), default=None) if status.finished else None,
        repo=repo_view(run.snapshot),
        variables=run.variables,
        jobs=[job_view(job, (positions or {}).get(job.id)) for job in jobs],
    )


def decisive(jobs: list[Job]) -> Job | None:
    """Return the job that decided how the run ended: the first that failed or was lost, else the first that stopped."""
    for ends in ((Status.FAILED, Status.LOST), (Status.STOPPED,)):
        ended = [job for job in jobs if job.status in ends and job.exit_code is not None]
        if ended:
            return min(ended, key=lambda job: job.finished_at or "")
    return None


def repo_view(snapshot: Snapshot) -> RepoView:
    """Return where the code came from."""
    return RepoView(url=snapshot.url, branch=snapshot.branch, commit=snapshot.commit, dirty=snapshot.dirty)
