"""Puts runs side by side: what differs between them, and which is the best."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from msgspec.structs import replace

from dstack.engine.context import Context
from dstack.errors import DstackError, UsageError
from dstack.model.api.results.compare import ComparedMetric, ComparedRun, Comparison
from dstack.model.api.results.metrics import plain
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.status import summary
from dstack.model.metrics.goal import best, goal_of
from dstack.model.metrics.series import MetricSummary
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.units import seconds
from dstack.store.store import Store

MOST = 1000
"""Runs of one comparison."""
MOST_TREES = 50
"""So many different trees are compared with the first one."""

Metrics = Mapping[str, MetricSummary]


async def compare(context: Context, runs: Sequence[Run], sort: str | None = None) -> Comparison:
    """Compare runs, in their order or sorted by the best value of a metric. Raises UsageError."""
    if not 1 <= len(runs) <= MOST:
        raise UsageError(f"{len(runs)} runs can't be compared; choose 1 to {MOST}")
    store = context.store
    metrics = {run.name: store.metrics.of(store.jobs.of(run.name)) for run in runs}
    if sort is not None:
        runs = ordered(runs, metrics, sort)
    changed = await changed_files(context, runs)
    views = [view(store, run, metrics[run.name], changed[run.snapshot.tree]) for run in runs]
    known = dict.fromkeys(name for each in metrics.values() for name in each)
    differs = [*differences(views), *(f"metrics.{name}" for name in known if unequal(views, name))]
    varying = [name.removeprefix("variables.") for name in differs if name.startswith("variables.")]
    shown = [replace(each, variables={name: each.variables.get(name) for name in varying}) for each in views]
    winners = {name: winner for name in known if (winner := best_run(metrics, name)) is not None}
    return Comparison(runs=shown, differs=differs, best=winners)


def ordered(runs: Sequence[Run], metrics: Mapping[str, Metrics], name: str) -> list[Run]:
    """Sort runs by the best value of a metric, or else its last; those without come last. Raises UsageError."""
    known = {name for each in metrics.values() for name in each}
    if name not in known:
        near = did_you_mean(name, known)
        raise UsageError(f"none of these runs has a metric '{name}'{near}", hint="see `dstack metrics RUN`")
    return sorted(runs, key=lambda run: rank(metrics[run.name].get(name)))


def rank(metric: MetricSummary | None) -> tuple[bool, float]:
    """A key that sorts the best first, and what has no value last."""
    if metric is None:
        return True, 0.0
    value = (best(metric) or metric.last).value
    return math.isnan(value), -value if goal_of(metric.name) == "maximize" else value


def best_run(metrics: Mapping[str, Metrics], name: str) -> str | None:
    """Return the run with the best value of a metric; None if several have it, or nothing says what is best."""
    if len(metrics) < 2 or goal_of(name) is None:
        return None
    ranks = {run: rank(each[name]) for run, each in metrics.items() if name in each}
    first = min(ranks, key=ranks.__getitem__)
    return first if not ranks[first][0] and Counter(ranks.values())[ranks[first]] == 1 else None


def view(store: Store, run: Run, metrics: Metrics, changed: list[str] | None) -> ComparedRun:
    jobs = store.jobs.of(run.name)
    job = next((job for job in reversed(jobs) if job.workflow == run.workflow), jobs[-1] if jobs else None)
    return ComparedRun(
        name=run.name,
        workflow=run.workflow,
        status=summary([job.status for job in jobs]).value,
        submitted_at=run.submitted_at,
        variables={name: "null" if value is None else value for name, value in run.variables.items()},
        commit=run.snapshot.commit,
        dirty=run.snapshot.dirty,
        changed_files=changed,
        image=job.image if job else "",
        gpus=gpus_of(store, job) if job else "",
        seconds=took(job) if job else None,
        metrics={name: compared(each) for name, each in metrics.items()},
    )


def compared(metric: MetricSummary) -> ComparedMetric:
    top = best(metric)
    return ComparedMetric(
        last=plain(metric.last.value), best=plain(top.value) if top else None, best_step=top.step if top else None
    )


def gpus_of(store: Store, job: Job) -> str:
    """Describe the GPUs of a job: `2 x NVIDIA A100`; `2 GPUs` if their runner is gone."""
    runner = store.runners.get(job.runner or "")
    names = {gpu.index: gpu.name for gpu in runner.facts.gpus} if runner and runner.facts else {}
    counted = Counter(names.get(index, "GPU") for index in job.gpus)
    return ", ".join(name if count == 1 else f"{count} x {name}" for name, count in counted.items())


def took(job: Job) -> float | None:
    if job.cached_from or not job.started_at or not job.finished_at:
        return None
    return round(seconds(job.finished_at) - seconds(job.started_at), 3)


def differences(views: Sequence[ComparedRun]) -> Iterator[str]:
    """Yield what differs besides metrics."""
    for name in ("workflow", "status"):
        if len({getattr(each, name) for each in views}) > 1:
            yield name
    for name in dict.fromkeys(name for each in views for name in each.variables):
        if len({each.variables.get(name) for each in views}) > 1:
            yield f"variables.{name}"
    if any(each.changed_files != [] for each in views) or len({(each.commit, each.dirty) for each in views}) > 1:
        yield "code"
    for name in ("image", "gpus", "seconds"):
        if len({getattr(each, name) for each in views}) > 1:
            yield name


def unequal(views: Sequence[ComparedRun], metric: str) -> bool:
    """Whether a metric is not the same in all of them."""
    first = views[0].metrics.get(metric)
    return any(each.metrics.get(metric) != first for each in views)


async def changed_files(context: Context, runs: Sequence[Run]) -> dict[str, list[str] | None]:
    """Return by tree the files that differ from the first run's; None where that is not known."""
    first = runs[0].snapshot
    found: dict[str, list[str] | None] = {first.tree: []}
    for snapshot in {run.snapshot.tree: run.snapshot for run in runs}.values():
        if snapshot.tree not in found:
            few = len(found) <= MOST_TREES and snapshot.repo == first.repo
            found[snapshot.tree] = await asyncio.to_thread(differing, context, first, snapshot) if few else None
    return found


def differing(context: Context, first: Snapshot, other: Snapshot) -> list[str] | None:
    """Return the files that differ; None if the server no longer has the code."""
    with suppress(DstackError):
        return context.mirror(first.repo).differing(first.tree, other.tree)
    return None
