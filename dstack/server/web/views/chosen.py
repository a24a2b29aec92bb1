"""Which job of a run a page is about, and which runs are compared."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.errors import NotFoundError, UsageError
from dstack.model.job.job import Job, Run
from dstack.model.job.status import Status
from dstack.store.lookup import run_named
from dstack.store.store import Store

MOST = 20
"""Most runs that are compared."""


def chosen_of(run: Run, jobs: list[Job], wanted: str | None) -> Job | None:
    """Return the job that a page is about: the one asked for, by id or workflow; else the one that says most now: it
    runs, or it decided how the run ended, or it is the one that the user named."""
    if wanted is not None:
        found = next((job for job in jobs if wanted in (job.id, job.workflow)), None)
        if found is None:
            raise NotFoundError(f"{run.name} has no job '{wanted}'", hint=f"dstack runs {run.name}")
        return found
    busy = [job for job in jobs if job.status in (Status.RUNNING, Status.UPLOADING)]
    failed = [job for job in jobs if job.status in (Status.FAILED, Status.LOST)]
    named = [job for job in jobs if job.workflow == run.workflow]
    return next(iter([*busy, *failed, *named, *jobs]), None)


def chosen_runs(store: Store, given: Sequence[str]) -> list[Run]:
    """Return the runs that are named, each text with one or several separated by commas. Raises UsageError for more
    than can be compared."""
    names = list(dict.fromkeys(name for text in given for name in text.split(",") if name))
    if len(names) > MOST:
        raise UsageError(f"at most {MOST} runs can be compared, not {len(names)}", hint="leave some out of the URL")
    return [run_named(store, name) for name in names]
