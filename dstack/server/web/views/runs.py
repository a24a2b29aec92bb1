"""The list of runs: filtered, sorted, with a column for each variable that differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from dstack.engine.engine import Engine
from dstack.model.api.runs import RunView
from dstack.model.job.job import Run
from dstack.model.job.status import Status
from dstack.server.roles import owns
from dstack.server.views import run_view
from dstack.server.web.views.metrics import number
from dstack.server.web.words import elapsed, started
from dstack.store.tables.run_list import RunFilter

ROWS = 50
SORTED = 300
"""How many of the newest runs are sorted: in any other order than theirs, they have to be read."""
COLUMNS = 6
"""Most variables and metrics that are shown without being asked for."""
ACTIVE = "active"
"""In place of a status: all runs that have not ended."""


@dataclass(frozen=True)
class RunRow:
    """A run in a list; `own`: the reader may change it."""

    view: RunView
    own: bool

    @property
    def values(self) -> dict[str, str]:
        """Its variables, and the last values of its metrics."""
        metrics = {name: number(float(value)) for name, value in self.view.metrics.items()}
        return {**metrics, **self.view.variables}


@dataclass
class RunsPage:
    engine: Engine

    def runs(
        self,
        request: Request,
        workflow: str | None = None,
        user: str | None = None,
        status: str | None = None,
        q: str | None = None,
        sort: str | None = None,
        up: bool = False,
        before: int | None = None,
    ) -> dict[str, Any]:
        wanted = self.wanted(workflow, user, status, q)
        limit = SORTED if sort else ROWS
        found = self.engine.store.run_list.page(wanted, limit + 1, None if sort else before)
        rows = self.rows([run for _, run in found[:limit]])
        variables = differing(rows)
        known = {name for row in rows for name in row.values}
        chosen = [name for name in request.query_params.getlist("col") if name in known]
        shown = sorted(rows, key=lambda row: key(row, sort or ""), reverse=not up) if sort else rows
        filters = {"workflow": workflow, "user": user, "status": status, "q": q, "col": chosen}
        return {
            "rows": shown,
            "filters": filters,
            "sort": sort,
            "up": up,
            "before": before,
            "older": found[limit - 1][0] if len(found) > limit and not sort else None,
            "cut": bool(sort) and len(found) > limit,
            "count": self.engine.store.run_list.count(wanted),
            "columns": chosen or variables[:COLUMNS],
            "variables": sorted(known),
            "workflows": self.engine.store.run_list.recent("workflow"),
            "users": self.engine.store.run_list.recent("user"),
            "statuses": [ACTIVE, *(each.value for each in Status)],
            "tags": tags_by_run(self.engine, {row.view.name for row in rows}),
        }

    def wanted(self, workflow: str | None, user: str | None, status: str | None, q: str | None) -> RunFilter:
        """Return the filter. An unknown status lists nothing."""
        wanted = RunFilter(workflow=workflow, user=user, text=q and q[:100])
        if status == ACTIVE:
            names = dict.fromkeys(job.run for job in self.engine.store.jobs.unfinished())
            return RunFilter(workflow=workflow, user=user, text=wanted.text, names=tuple(names))
        if status is None:
            return wanted
        known = next((each for each in Status if each.value == status), None)
        names_ = () if known is None else None
        return RunFilter(workflow=workflow, user=user, text=wanted.text, status=known, names=names_)

    def rows(self, runs: Sequence[Run]) -> list[RunRow]:
        jobs = self.engine.store.jobs.of_all([run.name for run in runs])
        told, positions = self.engine.context.told, self.engine.scheduler.positions
        rows = []
        for run in runs:
            mine = [told(job) for job in jobs.get(run.name, [])]
            metrics = self.engine.store.metrics.of(mine)
            rows.append(RunRow(run_view(run, mine, positions, metrics=metrics), owns(run)))
        return rows


def differing(rows: Sequence[RunRow]) -> list[str]:
    """Return the variables and metrics of which two runs have different values, in the order in which they come up."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.values.items():
            values.setdefault(name, set()).add(value)
    return [name for name, found in values.items() if len(found) > 1]


def key(row: RunRow, sort: str) -> tuple[int, float, str]:
    """Return what a run is sorted by: numbers before texts, and runs without a value last."""
    view = row.view
    if sort == "duration":
        return 1, elapsed(started(view), view.finished_at), ""
    text = {"name": view.name, "user": view.user, "workflow": view.workflow}.get(sort, row.values.get(sort))
    if text is None:
        return 0, 0.0, ""
    try:
        return 2, float(text.replace(",", "")), ""
    except ValueError:
        return 1, 0.0, text


def tags_by_run(engine: Engine, names: set[str]) -> dict[str, list[str]]:
    """Return the tags of these runs."""
    found: dict[str, list[str]] = {}
    for tag in engine.store.tags.all():
        if tag.run in names:
            found.setdefault(tag.run, []).append(tag.name)
    return found
