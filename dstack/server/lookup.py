"""Finds the run or job that a user means: the whole name, or a unique prefix."""

from __future__ import annotations

from dstack.errors import NotFoundError
from dstack.model.job import Job, Run
from dstack.store import Store


def run_named(store: Store, ref: str) -> Run:
    """The run, or NotFoundError."""
    return store.runs.require(only(ref, store.runs.matching(ref), "run", "dstack runs"))


def job_named(store: Store, ref: str) -> Job:
    """The job, or NotFoundError."""
    return store.jobs.require(only(ref, store.jobs.matching(ref), "job", "dstack jobs"))


def jobs_named(store: Store, ref: str) -> tuple[Run, list[Job], bool]:
    """The run that is meant or that the job belongs to, the jobs meant, and whether it was the run that was named."""
    runs, jobs = store.runs.matching(ref), store.jobs.matching(ref)
    if ref in jobs or (jobs and not runs):
        job = job_named(store, ref)
        return store.runs.require(job.run), [job], False
    name = only(ref, runs + jobs, "run or job", "dstack runs")
    return store.runs.require(name), store.jobs.of(name), True


def only(ref: str, found: list[str], noun: str, command: str) -> str:
    """The one thing that was found."""
    if not found or not ref:
        raise NotFoundError(f"no {noun} '{ref}'", hint=f"see `{command}`")
    if len(found) > 1:
        raise NotFoundError(f"'{ref}' is the beginning of several: {', '.join(sorted(found))}", hint="write more of it")
    return found[0]
