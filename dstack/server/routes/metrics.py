"""Metrics that were read from logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from dstack.engine.engine import Engine
from dstack.errors import NotFoundError
from dstack.model.api.results.compare import Comparison
from dstack.model.api.results.metrics import JobSeries, series_view
from dstack.model.job.job import Job
from dstack.model.metrics.series import KEPT
from dstack.model.text.suggest import did_you_mean
from dstack.server.compare import compare
from dstack.store.lookup import jobs_named, runs_named

Points = Annotated[int, Meta(ge=2, le=KEPT)]
"""How many of a series."""


@dataclass
class MetricRoutes:
    engine: Engine

    def series(self, ref: str, points: Points = 500, names: str = "") -> list[JobSeries]:
        """Answer with the series of a run or job: of all metrics, or those in `names`, separated by commas."""
        run, jobs, _ = jobs_named(self.engine.store, ref)
        wanted = {name for name in names.split(",") if name}
        known = {name for job in jobs for name in self.engine.store.metrics.summaries(job.source)}
        for name in sorted(wanted - known):
            hint = f"to see its metrics: dstack metrics {run.name}"
            raise NotFoundError(f"{ref} has no metric '{name}'{did_you_mean(name, known)}", hint=hint)
        return [self._of(job, points, wanted) for job in jobs]

    async def compare(self, refs: str, sort: str | None = None) -> Comparison:
        """Compare the runs in `refs`, separated by commas."""
        runs = runs_named(self.engine.store, [ref for ref in refs.split(",") if ref])
        return await compare(self.engine.context, runs, sort)

    def _of(self, job: Job, points: int, wanted: set[str]) -> JobSeries:
        metrics = self.engine.store.metrics
        state = metrics.state(job.source)
        return JobSeries(
            job=job.id,
            run=job.run,
            workflow=job.workflow,
            cached_from=job.cached_from,
            wanted=job.definition.metrics is not None,
            series=[
                series_view(summary, metrics.series(job.source, name, points))
                for name, summary in metrics.summaries(job.source).items()
                if not wanted or name in wanted
            ],
            refused=state.refused if state else {},
        )
