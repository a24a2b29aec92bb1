"""Finds the run or job that a user means: the whole name, or a unique prefix."""

from __future__ import annotations

from dstack.errors import NotFoundError
from dstack.model.job import Job, Run
from dstack.model.suggest import did_you_mean
from dstack.model.tag import MARK, is_tag
from dstack.store import Store


def tagged(store: Store, ref: str) -> Job:
    """The job that `:NAME` stands for, or NotFoundError."""
    found = store.tags.get(ref.removeprefix(MARK))
    if found is None:
        near = did_you_mean(ref.removeprefix(MARK), [tag.name for tag in store.tags.all()])
        raise NotFoundError(f"no tag '{ref}'{near}", hint="see `dstack tag`")
    return store.jobs.require(found.job)


def run_named(store: Store, ref: str) -> Run:
    """The run, or NotFoundError."""
    if is_tag(ref):
        return store.runs.require(tagged(store, ref).run)
    return store.runs.require(only(ref, store.runs.matching(ref), "run", "dstack runs"))


def job_named(store: Store, ref: str) -> Job:
    """The job, or NotFoundError."""
    if is_tag(ref):
        return tagged(store, ref)
    return store.jobs.require(only(ref, store.jobs.matching(ref), "job", "dstack jobs"))


def jobs_named(store: Store, ref: str) -> tuple[Run, list[Job], bool]:
    """The run that is meant or that the job belongs to, the jobs meant, and whether it was the run that was named."""
    if is_tag(ref):
        run = run_named(store, ref)
        return run, store.jobs.of(run.name), True
    runs, jobs = store.runs.matching(ref), store.jobs.matching(ref)
    if ref in jobs or (jobs and not runs):
        job = job_named(store, ref)
        return store.runs.require(job.run), [job], False
    # A run of exactly that name is meant, though a job's id begins so.
    name = only(ref, runs if runs == [ref] else runs + jobs, "run or job", "dstack runs")
    return store.runs.require(name), store.jobs.of(name), True


def only(ref: str, found: list[str], noun: str, command: str) -> str:
    """The one thing that was found."""
    if not found or not ref:
        raise NotFoundError(f"no {noun} '{ref}'", hint=f"see `{command}`")
    if len(found) > 1:
        raise NotFoundError(f"'{ref}' is the beginning of several: {', '.join(sorted(found))}", hint="write more of it")
    return found[0]
