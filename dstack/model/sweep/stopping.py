"""Decides which running trials have no chance: rules on curves of the sweep's metric."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from statistics import median

from msgspec import Struct

from dstack.model.project.workflow import MetricGoal, StopEarly

COMPARED = 3
"""How many other trials must have come as far before the median says anything."""
ETA = 3
"""ASHA lets one in so many go on at each rung, and the next rung is so many times further (Li et al., 2018)."""


class Curve(Struct, frozen=True):
    """The best value of a trial until each step. Values are signed so that less is better."""

    steps: tuple[float, ...]
    bests: tuple[float, ...]

    @property
    def end(self) -> float:
        """The last step; before all others without one."""
        return self.steps[-1] if self.steps else -math.inf

    def best(self, until: float) -> float:
        """Return the best value until a step; infinity without one."""
        place = bisect_right(self.steps, until)
        return self.bests[place - 1] if place else math.inf


class Loss(Struct, frozen=True):
    """A trial lost: at this step, its best value was worse than `limit`, which is from `others`, so many trials."""

    step: float
    value: float
    limit: float
    others: int


def curve(metric: MetricGoal, points: Iterable[tuple[float, float]]) -> Curve:
    """Return the curve of steps and values in the order in which they were printed. What is not a number is worse than
    any; steps never go back."""
    sign = -1.0 if metric.goal == "maximize" else 1.0
    found = list(points)
    values = (math.inf if math.isnan(value) else sign * value for _, value in found)
    return Curve(tuple(accumulate((step for step, _ in found), max)), tuple(accumulate(values, min)))


def lost(rule: StopEarly, metric: MetricGoal, own: Curve, others: Sequence[Curve]) -> Loss | None:
    """Return where a trial has lost against others, finished ones among them; None if it may go on."""
    judge = _median if rule.rule == "median" else _asha
    found = judge(rule.warmup, own, others)
    sign = -1.0 if metric.goal == "maximize" else 1.0
    return found and Loss(found.step, sign * found.value, sign * found.limit, found.others)


def _median(warmup: int, own: Curve, others: Sequence[Curve]) -> Loss | None:
    """Worse than half of those that came as far, each judged by its best value until there (as in Google Vizier)."""
    if own.end < warmup:
        return None
    rivals = [other.best(own.end) for other in others if other.end >= own.end]
    value = own.best(own.end)
    if len(rivals) < COMPARED or value <= median(rivals):
        return None
    return Loss(own.end, value, median(rivals), len(rivals))


def _asha(warmup: int, own: Curve, others: Sequence[Curve]) -> Loss | None:
    """Not among the best third at the last rung that it reached. Rungs are at warmup, 3 * warmup, 9 * warmup, ..."""
    rung = float(max(warmup, 1))
    if own.end < rung:
        return None
    while rung * ETA <= own.end:
        rung *= ETA
    rivals = [other.best(rung) for other in others if other.end >= rung]
    value, places = own.best(rung), (len(rivals) + 1) // ETA
    if places == 0:
        return None
    limit = sorted([*rivals, value])[places - 1]
    return Loss(rung, value, limit, len(rivals)) if value > limit else None
