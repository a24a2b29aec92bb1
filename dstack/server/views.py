"""Records as users see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from dstack.model.api.jobs import ArtifactsView, AttemptView, CacheView, JobView
from dstack.model.api.results.metrics import plain
from dstack.model.api.runs import RepoView, RunView
from dstack.model.job.job import Attempt, Job, Run, decisive
from dstack.model.job.reasons import reason_code
from dstack.model.job.status import Status, summary
from dstack.model.metrics.series import MetricSummary

View = TypeVar("View", bound=Struct)


def shown(record: object, kind: type[View], **different: Any) -> View:
    """Return a record as users see it: the view's fields are those of the record, except the ones that differ."""
    fields = kind.__struct_fields__
    return msgspec.convert({name: getattr(record, name) for name in fields if name not in different} | different, kind)


def job_view(job: Job, position: int | None = None) -> JobView:
    """Return a job as users see it. `position` is its position in the queue."""
    return shown(
        job,
        JobView,
        exit_code=job.exit_code if job.finished else None,
        reason=job.reason.text if job.reason else None,
        cached=job.cached_from is not None,
        cache=CacheView(job.cached_from is not None, job.why),
        artifacts=ArtifactsView(job.files, job.bytes),
        position=position if job.status is Status.QUEUED else None,
        attempts=[attempt_view(attempt) for attempt in job.history],
        ports=list(job.definition.ports),
    )


def attempt_view(attempt: Attempt) -> AttemptView:
    """Return an earlier attempt as users see it."""
    return shown(
        attempt,
        AttemptView,
        reason=attempt.reason.text if attempt.reason else None,
        reason_code=reason_code(attempt.status, attempt.reason),
    )


def run_view(
    run: Run,
    jobs: list[Job],
    positions: Mapping[str, int] | None = None,
    warnings: Sequence[str] = (),
    metrics: Mapping[str, MetricSummary] | None = None,
) -> RunView:
    """Return a run as users see it, with the status, exit code and reason of the job that decided it. `positions`
    holds the positions in the queue by job id."""
    status = summary([job.status for job in jobs])
    deciding = decisive(jobs) if status.finished else None
    reasoned = deciding or next((job for job in jobs if not job.finished and job.reason), None)
    return shown(
        run,
        RunView,
        variables={name: "null" if value is None else value for name, value in run.variables.items()},
        status=status,
        exit_code=(deciding.exit_code if deciding else 0) if status.finished else None,
        reason=f"{reasoned.workflow}: {reasoned.reason.text}" if reasoned and reasoned.reason else None,
        reason_code=reasoned.reason_code if reasoned else None,
        finished_at=max((job.finished_at or "" for job in jobs), default=None) if status.finished else None,
        repo=shown(run.snapshot, RepoView),
        jobs=[job_view(job, (positions or {}).get(job.id)) for job in jobs],
        warnings=warnings,
        metrics={name: plain(each.last.value) for name, each in (metrics or {}).items()},
    )
