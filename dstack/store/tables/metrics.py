"""What was read from the logs of jobs: series, and how far each log was read."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from dstack.model.job.job import Job
from dstack.model.metrics.series import MetricPoint, MetricSummary, Series, thinned
from dstack.model.metrics.state import ReaderState
from dstack.store.database import encoded
from dstack.store.tables.events import RecordedTable

COLUMNS = tuple(f"{which}_{part}" for which in ("last", "min", "max") for part in ("step", "time", "value"))
"""The points of a summary. SQLite stores NaN as NULL, so a value that is NULL is NaN."""
SAVE = (
    f"INSERT INTO metric_series (job, name, count, stride, {', '.join(COLUMNS)})"
    f" VALUES (?, ?, ?, ?, {', '.join('?' for _ in COLUMNS)}) ON CONFLICT (job, name) DO UPDATE SET"
    f" {', '.join(f'{column} = excluded.{column}' for column in ('count', 'stride', *COLUMNS))}"
    " RETURNING number"
)


class Metrics(RecordedTable):
    """The series of all jobs. A cached job has none of its own: ask for those of `Job.source`."""

    def summaries(self, job_id: str) -> dict[str, MetricSummary]:
        """Return the series of a job in numbers, by name, in the order in which they first appeared."""
        sql = "SELECT * FROM metric_series WHERE job = ? ORDER BY number"
        return {row["name"]: summary(row) for row in self.database.rows(sql, job_id)}

    def of(self, jobs: Iterable[Job]) -> dict[str, MetricSummary]:
        """Return the metrics of a run's jobs, dependencies first: those of the later jobs win."""
        return {name: each for job in jobs for name, each in self.summaries(job.source).items()}

    def series(self, job_id: str, name: str, most: int) -> list[MetricPoint]:
        """Return at most `most` points of a series, the first and the last among them; none if there is no series."""
        sql = "SELECT * FROM metric_series WHERE job = ? AND name = ?"
        rows = self.database.rows(sql, job_id, name)
        if not rows:
            return []
        sql = "SELECT step, time, value FROM metric_points WHERE series = ? ORDER BY number"
        points = [MetricPoint(step, time, real(value)) for step, time, value in self.database.rows(sql, rows[0][0])]
        whole = summary(rows[0])
        stride = rows[0]["stride"]
        if (whole.count - 1) % stride:
            points.append(whole.last)
        return thinned(points, most)

    def state(self, job_id: str) -> ReaderState | None:
        """Return how far the job's log was read, None if it was not."""
        return self.database.record(ReaderState, "SELECT data FROM metric_readers WHERE job = ?", job_id)

    def load(self, job_id: str) -> dict[str, Series]:
        """Return the series of a job, to add to them."""
        rows = self.database.rows("SELECT * FROM metric_series WHERE job = ? ORDER BY number", job_id)
        return {row["name"]: Series(summary(row), row["stride"]) for row in rows}

    def save(self, job: Job, state: ReaderState, series: Mapping[str, Series]) -> None:
        """Save how far the log was read together with what was read, in one transaction: nothing is counted twice or
        lost, whenever the server ends. `series` are those that changed. What is refused since the last time is an
        event."""
        with self.database.transaction():
            before = self.state(job.id)
            self.database.execute("INSERT OR REPLACE INTO metric_readers VALUES (?, ?)", (job.id, encoded(state)))
            for name, each in series.items():
                self._save(job.id, name, each)
            for name in state.refused.keys() - (before.refused if before else {}):
                self._tell(job, name, state.refused[name])
        for each in series.values():
            each.saved()

    def _save(self, job_id: str, name: str, series: Series) -> None:
        whole = series.summary(name)
        points = [part for point in (whole.last, whole.min, whole.max) for part in stored(point)]
        number = self.database.execute(SAVE, (job_id, name, whole.count, series.stride, *points)).fetchone()[0]
        if series.stride != series.saved_stride:
            self.database.execute(
                "DELETE FROM metric_points WHERE series = ? AND number % ? != 0", (number, series.stride)
            )
        rows = [(number, at, *stored(point)) for at, point in series.fresh]
        self.database.conn.executemany("INSERT INTO metric_points VALUES (?, ?, ?, ?, ?)", rows)

    def _tell(self, job: Job, name: str, reason: str) -> None:
        data = {"workflow": job.workflow, "name": name or None, "reason": reason}
        self.events.add("job.metrics-refused", run=job.run, job=job.id, data=data)

    def remove(self, job_id: str) -> None:
        """Forget what was read from a job's log."""
        with self.database.transaction():
            numbers = self.database.column("SELECT number FROM metric_series WHERE job = ?", job_id)
            for number in numbers:
                self.database.execute("DELETE FROM metric_points WHERE series = ?", (number,))
            for table in ("metric_series", "metric_readers"):
                self.database.execute(f"DELETE FROM {table} WHERE job = ?", (job_id,))


def summary(row: sqlite3.Row) -> MetricSummary:
    """Return a series' row in numbers."""
    last, least, most = (
        MetricPoint(row[f"{which}_step"], row[f"{which}_time"], real(row[f"{which}_value"]))
        for which in ("last", "min", "max")
    )
    return MetricSummary(row["name"], row["count"], last, least, most)


def stored(point: MetricPoint) -> Sequence[float]:
    return point.step, point.time, point.value


def real(value: float | None) -> float:
    return math.nan if value is None else float(value)
