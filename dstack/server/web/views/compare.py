"""Runs side by side: what differs between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request

from dstack.engine.engine import Engine
from dstack.model.api.runs import RunView
from dstack.model.job.job import Run
from dstack.model.metrics.goal import best, goal_of
from dstack.model.metrics.series import MetricSummary
from dstack.model.text.units import size_words, took_words
from dstack.server.web.views.chosen import chosen_runs
from dstack.server.web.views.metrics import number
from dstack.server.web.views.runs import RunsPage
from dstack.server.web.words import elapsed, machines, started


@dataclass(frozen=True)
class ComparedProperty:
    """One property of all runs: its value in each, None where there is none. `same`: it is equal in all; `best` is the
    number of the run with the best value, if there is one."""

    group: str
    name: str
    values: list[str | None]
    same: bool
    best: int | None = None


@dataclass
class ComparePage:
    engine: Engine
    list: RunsPage

    def compare(self, request: Request, all: bool = False) -> dict[str, Any]:  # noqa: A002, the parameter of the URL
        runs = chosen_runs(self.engine.store, request.query_params.getlist("runs"))
        views = [row.view for row in self.list.rows(runs)]
        metrics = [self.engine.store.metrics.of(self.engine.store.jobs.of(run.name)) for run in runs]
        rows = [*differences(runs, views), *measured(metrics)]
        return {
            "views": views,
            "groups": grouped([row for row in rows if all or not row.same]),
            "hidden": 0 if all else sum(row.same for row in rows),
            "all": all,
            "curves": any(metrics),
            "names": ",".join(view.name for view in views),
        }


def grouped(rows: Sequence[ComparedProperty]) -> dict[str, list[ComparedProperty]]:
    """Return the rows by group, in their order."""
    found: dict[str, list[ComparedProperty]] = {}
    for row in rows:
        found.setdefault(row.group, []).append(row)
    return found


def differences(runs: Sequence[Run], views: Sequence[RunView]) -> list[ComparedProperty]:
    """Return every property of the runs: how they went, variables, code and images."""
    outcome: dict[str, Callable[[RunView], str | None]] = {
        "status": lambda view: view.status.value,
        "reason": lambda view: view.reason,
        "exit code": lambda view: None if view.exit_code is None else str(view.exit_code),
        "duration": lambda view: took_words(elapsed(started(view), view.finished_at)) if started(view) else None,
        "runner": lambda view: ", ".join(machines(view)) or None,
        "artifacts": lambda view: size_words(sum(job.artifacts.bytes for job in view.jobs)),
        "user": lambda view: view.user,
        "workflow": lambda view: view.workflow,
    }
    code: dict[str, Callable[[RunView], str | None]] = {
        "branch": lambda view: view.repo.branch,
        "commit": lambda view: view.repo.commit and view.repo.commit[:10],
        "uncommitted changes": lambda view: "yes" if view.repo.dirty else "no",
    }
    rows = [difference("outcome", name, [read(view) for view in views]) for name, read in outcome.items()]
    for name in dict.fromkeys(name for view in views for name in view.variables):
        rows.append(difference("variables", name, [view.variables.get(name) for view in views]))
    rows += [difference("code", name, [read(view) for view in views]) for name, read in code.items()]
    rows.append(difference("code", "tree", [run.snapshot.tree[:10] for run in runs]))
    for workflow in dict.fromkeys(job.workflow for view in views for job in view.jobs):
        jobs = [next((job for job in view.jobs if job.workflow == workflow), None) for view in views]
        rows.append(difference("images", workflow, [job.image if job else None for job in jobs]))
        rows.append(difference("images", f"{workflow}: digest", [job.image_digest if job else None for job in jobs]))
    return rows


def measured(metrics: Sequence[Mapping[str, MetricSummary]]) -> list[ComparedProperty]:
    """Return the last value of each metric, and the best one if its name tells which that is."""
    rows = []
    for name in dict.fromkeys(name for each in metrics for name in each):
        found = [each.get(name) for each in metrics]
        rows.append(difference("metrics", f"{name}, last", [number(one.last.value) if one else None for one in found]))
        if goal_of(name):
            tops = [best(one) if one else None for one in found]
            row = difference("metrics", f"{name}, best", [number(top.value) if top else None for top in tops])
            rows.append(replace(row, best=winner(name, [top.value if top else math.nan for top in tops])))
    return rows


def winner(name: str, values: Sequence[float]) -> int | None:
    """Return where the best value is; None if several runs have it."""
    known = [value for value in values if not math.isnan(value)]
    if len(known) < 2:
        return None
    top = min(known) if goal_of(name) == "minimize" else max(known)
    return values.index(top) if known.count(top) == 1 else None


def difference(group: str, name: str, values: list[str | None]) -> ComparedProperty:
    return ComparedProperty(group, name, values, len(set(values)) == 1)
