"""The combinations of values that a sweep may try."""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Mapping

from dstack.model.project import intervals
from dstack.model.project.workflow import Interval, Params

Point = dict[str, str]
"""The values of one trial, by variable."""
Choices = tuple[str, ...] | Interval


def count(values: Choices) -> int | None:
    """Return how many values a parameter has; None for infinitely many."""
    return intervals.count(values) if isinstance(values, Interval) else len(values)


def size(params: Params) -> int | None:
    """Return how many combinations there are; None for infinitely many."""
    counts = [count(values) for values in params.values()]
    return None if None in counts else math.prod(each for each in counts if each is not None)


def contains(values: Choices, value: str) -> bool:
    """Whether a parameter may have this value."""
    return intervals.contains(values, value) if isinstance(values, Interval) else value in values


def key(params: Params, point: Point) -> Hashable:
    """Return what is equal for two points with equal values: 1e-3 in an interval is 0.001."""
    return tuple(float(point[name]) if isinstance(values, Interval) else point[name] for name, values in params.items())


def at(params: Params, index: int) -> Point:
    """Return a combination by its number, from 0, in a space that can be counted. The last parameter changes first."""
    found: Point = {}
    for name, values in reversed(params.items()):
        index, place = divmod(index, count(values) or 1)
        found[name] = intervals.at(values, place) if isinstance(values, Interval) else values[place]
    return {name: found[name] for name in params}


def draw(params: Params, rng: random.Random, given: Mapping[str, str] | None = None) -> Point:
    """Return a random combination that has the `given` values. It needs only `rng.random()`, which gives the same
    numbers in every version of Python."""
    shares = {name: rng.random() for name in params}
    return {name: (given or {}).get(name) or _chosen(values, shares[name]) for name, values in params.items()}


def _chosen(values: Choices, share: float) -> str:
    if isinstance(values, Interval):
        return intervals.between(values, share)
    return values[int(share * len(values))]
