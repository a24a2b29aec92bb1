"""What a job used over time: CPU, memory and GPUs, thinned to what a chart can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from dstack.model.runner.metrics import Point

POINTS = 600
"""Most points of a chart."""
SPARK_WIDTH, SPARK_HEIGHT = 120, 24
FIELDS = ("cpu", "memory", "gpu", "gpu_memory")


@dataclass(frozen=True)
class UseSummary:
    """One measure in numbers: the newest, mean and highest value, and a small picture of it (an SVG's `points`)."""

    name: str
    last: float
    mean: float
    peak: float
    spark: str


def thinned(points: Sequence[Point]) -> dict[str, list[float | None]]:
    """Return the points as columns, each value the mean of as many as are needed for at most POINTS of them."""
    step = max(1, -(-len(points) // POINTS))
    groups = [points[at : at + step] for at in range(0, len(points), step)]
    columns: dict[str, list[float | None]] = {"time": [group[0].time for group in groups]}
    for name in FIELDS:
        columns[name] = [mean([getattr(point, name) for point in group]) for group in groups]
    return {name: column for name, column in columns.items() if any(value is not None for value in column)}


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 3) if known else None


def series_of(points: Sequence[Point]) -> list[UseSummary]:
    """Return each measure in numbers, for readers without the chart."""
    columns = thinned(points)
    return [series(name, [value or 0.0 for value in columns[name]]) for name in FIELDS if name in columns]


def series(name: str, values: Sequence[float]) -> UseSummary:
    highest = max(values) or 1.0
    across = SPARK_WIDTH / max(1, len(values) - 1)
    spark = " ".join(
        f"{at * across:.1f},{SPARK_HEIGHT - value / highest * (SPARK_HEIGHT - 2) - 1:.1f}"
        for at, value in enumerate(values)
    )
    return UseSummary(name, values[-1], fmean(values), max(values), spark)
