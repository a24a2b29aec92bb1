"""A series: the values of one metric of one job, in the order in which they were printed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

KEPT = 2048
"""A series keeps at most so many points, and at least half of them once it had more."""


class MetricPoint(Struct, frozen=True):
    """A value at a step, and the time at which it arrived, in seconds since the epoch (0 if unknown)."""

    step: float
    time: float
    value: float


class MetricSummary(Struct, frozen=True):
    """A whole series in numbers, exact however long it is. NaN is never `min` or `max` unless all values are."""

    name: str
    count: int
    last: MetricPoint
    min: MetricPoint
    max: MetricPoint


class Series:
    """A series that grows. Of its points it keeps each `stride`-th. `fresh` are the kept ones that were added since it
    was saved, by their number from 0."""

    def __init__(self, summary: MetricSummary | None = None, stride: int = 1) -> None:
        self.count = summary.count if summary else 0
        self.last = summary.last if summary else None
        self.min = summary.min if summary else None
        self.max = summary.max if summary else None
        self.least, self.greatest = (summary.min.value, summary.max.value) if summary else (math.nan, math.nan)
        self.stride = self.saved_stride = stride
        self.fresh: list[tuple[int, MetricPoint]] = []

    def add(self, step: float | None, time: float, value: float) -> None:
        """Add a value. Without a step, its number is the step."""
        number = self.count
        point = self.last = MetricPoint(number if step is None else step, time, value)
        if value < self.least or self.least != self.least:  # only NaN differs from itself
            self.min, self.least = point, value
        if value > self.greatest or self.greatest != self.greatest:
            self.max, self.greatest = point, value
        self.count = number + 1
        if number % self.stride == 0:
            self.fresh.append((number, point))
            if number // self.stride >= KEPT - 1:
                self._thin()

    def summary(self, name: str) -> MetricSummary:
        """Return it in numbers. It must have a point."""
        assert self.last is not None
        assert self.min is not None
        assert self.max is not None
        return MetricSummary(name, self.count, self.last, self.min, self.max)

    def saved(self) -> None:
        """Forget what is fresh: it is saved."""
        self.fresh, self.saved_stride = [], self.stride

    def _thin(self) -> None:
        self.stride *= 2
        self.fresh = [(number, point) for number, point in self.fresh if number % self.stride == 0]


def thinned(points: Sequence[MetricPoint], most: int) -> list[MetricPoint]:
    """Return at most `most` (at least 2) points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    gaps, most = len(points) - 1, max(most, 2)
    return [points[round(gaps * index / (most - 1))] for index in range(most)]
