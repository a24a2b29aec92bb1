"""Series of metrics as a table, with a small chart of each, and as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from dstack.cli.output import show
from dstack.cli.output.charts.usage import BARS
from dstack.model.api.results.metrics import JobSeries, Number, PointView, SeriesView

COLUMNS = ("METRIC", "LAST", "MIN", "MAX", "STEP", "VALUES", "CHART")
SPARE = ("VALUES", "CHART")
"""What a narrow terminal does without, in this order."""
WIDTH = 24
"""Characters of a chart."""


def print_series(series: Sequence[SeriesView]) -> None:
    show.table(COLUMNS, map(_row, series), spare=SPARE)


def print_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print rows as RFC 4180 has them, but with plain line ends."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(row)
        if text.tell() > 1 << 16:
            _flush(text)
    _flush(text)


def points_of(jobs: Sequence[JobSeries]) -> Iterable[Sequence[Any]]:
    """Yield a row of CSV for each point."""
    for job in jobs:
        for each in job.series:
            for point in each.points:
                yield job.run, job.job, job.workflow, each.name, point.step, point.time or "", point.value


def number_words(value: Number | None) -> str:
    """Format a number with six digits: `0.299`, `1e-05`, `nan`; "-" for none."""
    return "-" if value is None else f"{float(value):.6g}"


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """One line of bars from the least to the greatest value; a space where no value is a number."""
    count = min(len(values), width)
    parts = [values[len(values) * i // count : len(values) * (i + 1) // count] for i in range(count)]
    means = [_mean([value for value in part if math.isfinite(value)]) for part in parts]
    known = [mean for mean in means if mean is not None]
    if not known:
        return ""
    least, most = min(known), max(known)
    return "".join(" " if mean is None else _bar(mean, least, most) for mean in means)


def _row(series: SeriesView) -> Sequence[str]:
    chart = sparkline([float(point.value) for point in series.points])
    numbers = (number_words(point.value) for point in (series.last, series.min, series.max))
    return series.name, *numbers, _step(series.last), str(series.count), chart


def _step(point: PointView) -> str:
    return f"{point.step:.10g}"


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(value / len(values) for value in values) if values else None


def _bar(value: float, least: float, most: float) -> str:
    """The bar for a value; of values that are all the same, the lowest one. Halves can't overflow."""
    span = most / 2 - least / 2
    share = (value / 2 - least / 2) / span if span else 0.0
    return BARS[min(int(share * len(BARS)), len(BARS) - 1)]


def _flush(text: io.StringIO) -> None:
    show.out().write(text.getvalue().encode(errors="surrogateescape"))
    text.seek(0)
    text.truncate()
