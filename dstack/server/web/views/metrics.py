"""The metrics that were read from logs: in numbers, and as curves over their steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from dstack.engine.engine import Engine
from dstack.model.job.job import Job
from dstack.model.metrics.goal import best
from dstack.model.metrics.series import MetricSummary
from dstack.server.web import html
from dstack.server.web.views.chosen import chosen_of, chosen_runs
from dstack.store.lookup import run_named

POINTS = 400
"""Most points of a curve."""
CURVES = 24
"""Most metrics that are drawn."""


@dataclass(frozen=True)
class MetricRow:
    """A metric in numbers. `best` is the better one of its lowest and highest value, if its name tells which."""

    name: str
    last: str
    step: str
    best: str
    best_step: str
    lowest: str
    highest: str
    count: int


@dataclass
class MetricPages:
    engine: Engine

    def curves(self, name: str, job: str) -> Response:
        """Send the curves of a job, as columns."""
        run = run_named(self.engine.store, name)
        chosen = chosen_of(run, self.engine.store.jobs.of(run.name), job)
        found = self.engine.store.metrics.summaries(chosen.source) if chosen else {}
        charts = [
            {"name": metric, "lines": [self.line(chosen, metric, "")]} for metric in list(found)[:CURVES] if chosen
        ]
        return Response(html.as_json(charts), media_type="application/json")

    def compared(self, runs: str) -> Response:
        """Send the curves of several runs, by metric: a line for each run that has it."""
        store = self.engine.store
        lines: dict[str, list[dict[str, Any]]] = {}
        for run in chosen_runs(store, [runs]):
            owners = {name: job for job in store.jobs.of(run.name) for name in store.metrics.summaries(job.source)}
            for name, job in owners.items():
                if name in lines or len(lines) < CURVES:
                    lines.setdefault(name, []).append(self.line(job, name, run.name))
        charts = [{"name": name, "lines": each} for name, each in lines.items()]
        return Response(html.as_json(charts), media_type="application/json")

    def line(self, job: Job, name: str, label: str) -> dict[str, Any]:
        """Return a curve. Values that are no numbers leave a gap, and of several at one step the last one counts."""
        points = {point.step: point.value for point in self.engine.store.metrics.series(job.source, name, POINTS)}
        steps = sorted(points)
        values = [points[step] if math.isfinite(points[step]) else None for step in steps]
        return {"label": label or name, "x": steps, "y": values}


def rows_of(found: Sequence[MetricSummary]) -> list[MetricRow]:
    """Return metrics in numbers."""
    return [row_of(each) for each in found]


def row_of(metric: MetricSummary) -> MetricRow:
    top = best(metric)
    return MetricRow(
        metric.name,
        number(metric.last.value),
        number(metric.last.step),
        number(top.value) if top else "",
        number(top.step) if top else "",
        number(metric.min.value),
        number(metric.max.value),
        metric.count,
    )


def number(value: float) -> str:
    """Format a value: whole numbers as they are, others with six digits."""
    return f"{int(value):,}" if math.isfinite(value) and value == int(value) and abs(value) < 1e15 else f"{value:.6g}"
