"""Metrics that were read from logs, in the API and in `--json`."""

from __future__ import annotations

import math

from msgspec import Struct

from dstack.model.metrics.goal import Goal, goal_of
from dstack.model.metrics.series import MetricPoint, MetricSummary
from dstack.model.text.units import rfc3339

Number = float | str
"""A number. JSON has no NaN and no infinity: these are "NaN", "Infinity" and "-Infinity"."""


LARGEST_WHOLE = 2**53
"""Numbers from here on are never written as whole ones: not every reader of JSON could hold them."""


class PointView(Struct, kw_only=True):
    """A value at a step. `time` is when it arrived, None if that is unknown."""

    step: int | float
    time: str | None
    value: Number


class SeriesView(Struct, kw_only=True):
    """A metric of a job: exact in numbers, and with as many of its `points` as were asked for. `goal` is which values
    its name says are the better ones."""

    name: str
    goal: Goal | None
    count: int
    last: PointView
    min: PointView
    max: PointView
    points: list[PointView]


class JobSeries(Struct, kw_only=True):
    """The metrics of a job's last attempt; those of a cached job are those of `cached_from`. `refused` says by name
    which metrics are not read, and why; "" stands for all further ones. `wanted`: the workflow has `metrics`."""

    job: str
    run: str
    workflow: str
    cached_from: str | None
    wanted: bool
    series: list[SeriesView]
    refused: dict[str, str] = {}


def plain(value: float) -> Number:
    """Return a number as JSON can hold it."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def point_view(point: MetricPoint) -> PointView:
    whole = abs(point.step) < LARGEST_WHOLE and point.step == int(point.step)
    step = int(point.step) if whole else point.step
    return PointView(step=step, time=rfc3339(point.time) if point.time else None, value=plain(point.value))


def series_view(summary: MetricSummary, points: list[MetricPoint]) -> SeriesView:
    """Return a series as users see it."""
    return SeriesView(
        name=summary.name,
        goal=goal_of(summary.name),
        count=summary.count,
        last=point_view(summary.last),
        min=point_view(summary.min),
        max=point_view(summary.max),
        points=[point_view(point) for point in points],
    )
