"""Finds the run or job that a user means, by its full name or a unique prefix."""

from __future__ import annotations

from collections.abc import Iterable

from dstack.errors import ErrorCode, NotFoundError
from dstack.model.job.job import Job, Run
from dstack.model.sweep.sweep import BEST, Sweep, best_of
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.tag import MARK, is_tag
from dstack.store.store import Store


def tagged(store: Store, ref: str) -> Job:
    """Return the job that `:NAME` stands for. Raises NotFoundError."""
    tag = store.tags.get(ref.removeprefix(MARK))
    if tag is None:
        near = did_you_mean(ref.removeprefix(MARK), [tag.name for tag in store.tags.all()])
        raise NotFoundError(f"no tag '{ref}'{near}", hint="see `dstack tag`")
    return store.jobs.require(tag.job)


def sweep_named(store: Store, ref: str) -> Sweep:
    """Return the sweep. Raises NotFoundError."""
    return store.sweeps.require(only(ref, store.sweeps.matching(ref), "sweep", "dstack sweep list"))


def is_best(ref: str) -> bool:
    """Whether the text has the form `SWEEP:best`."""
    return ref.endswith(BEST) and not is_tag(ref)


def best_run(store: Store, ref: str) -> Run:
    """Return the run of the best trial that `SWEEP:best` stands for. Raises NotFoundError."""
    sweep = sweep_named(store, ref.removesuffix(BEST))
    best = best_of(sweep.plan.metric, store.sweeps.trials(sweep.name))
    if best is None:
        why = "no trial is done that has its metric" if sweep.plan.metric else "it has no metric"
        raise NotFoundError(f"{sweep.name} has no best trial: {why}", hint=f"dstack sweep show {sweep.name}")
    return store.runs.require(best.run)


def run_named(store: Store, ref: str) -> Run:
    """Return the run. Raises NotFoundError."""
    if is_best(ref):
        return best_run(store, ref)
    if is_tag(ref):
        return store.runs.require(tagged(store, ref).run)
    return store.runs.require(only(ref, store.runs.matching(ref), "run", "dstack runs"))


def runs_named(store: Store, refs: Iterable[str]) -> list[Run]:
    """Return the runs that are meant, each once, in this order: of a sweep, all its trials. Raises NotFoundError."""
    return list({run.name: run for ref in refs for run in runs_meant(store, ref)}.values())


def runs_meant(store: Store, ref: str) -> list[Run]:
    sweep = store.sweeps.get(ref)
    if sweep is None:
        return [jobs_named(store, ref)[0]]
    return [run for trial in store.sweeps.trials(ref) if (run := store.runs.get(trial.run))]


def job_named(store: Store, ref: str) -> Job:
    """Return the job. Raises NotFoundError."""
    if is_best(ref):
        run = best_run(store, ref)
        return next(job for job in store.jobs.of(run.name) if job.workflow == run.workflow)
    if is_tag(ref):
        return tagged(store, ref)
    return store.jobs.require(only(ref, store.jobs.matching(ref), "job", "dstack jobs"))


def jobs_named(store: Store, ref: str) -> tuple[Run, list[Job], bool]:
    """Return the run that is meant (or the run of that job), the jobs meant, and whether `ref` names the whole run."""
    if is_tag(ref) or is_best(ref):
        run = run_named(store, ref)
        return run, store.jobs.of(run.name), True
    runs, jobs = store.runs.matching(ref), store.jobs.matching(ref)
    if ref in jobs or (jobs and not runs):
        job = job_named(store, ref)
        return store.runs.require(job.run), [job], False
    # An exact run name wins over job ids that start with it.
    name = only(ref, runs if runs == [ref] else runs + jobs, "run or job", "dstack runs")
    return store.runs.require(name), store.jobs.of(name), True


def only(ref: str, found: list[str], noun: str, command: str) -> str:
    """Return the only match. Raises NotFoundError if there is none, or more than one."""
    if not found or not ref:
        raise NotFoundError(f"no {noun} '{ref}'", hint=f"see `{command}`")
    if len(found) > 1:
        message = f"'{ref}' matches several: {', '.join(sorted(found))}"
        raise NotFoundError(message, hint="type more of the name", code=ErrorCode.AMBIGUOUS)
    return found[0]
