"""Chooses the values of each trial: never those of an earlier one."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from itertools import count, islice

from dstack.model.project.workflow import Params
from dstack.model.sweep import space
from dstack.model.sweep.plan import SweepPlan
from dstack.model.sweep.space import Point
from dstack.model.sweep.status import SweepMethod

STARTUP = 10
"""How many trials of TPE are random, before there is something to learn from."""
TRIES = 50
"""Random points that may be known already before the ones that are left are counted."""
COUNTABLE = 40_000
"""Points of a space in which the ones that are left are looked for one by one. In a larger one, at most a quarter is
known, and so many tries don't fail."""


def next_point(plan: SweepPlan, tried: Sequence[Point]) -> Point | None:
    """Return the values of the next trial, given those of all earlier ones in their order; None if the space is used
    up. The same plan and trials give the same values. TPE's own choices are made elsewhere."""
    known = {space.key(plan.params, point) for point in tried}
    number = len(tried)
    if number < len(plan.try_first):
        return _first(plan, number, known)
    if plan.method is SweepMethod.GRID:
        return _unknown(plan, known, (space.at(plan.params, index) for index in _indexes(plan, number)))
    return _random(plan, number, known)


def learns(plan: SweepPlan, number: int) -> bool:
    """Whether TPE chooses the values of the trial with this number, from 0."""
    return plan.method is SweepMethod.TPE and number >= max(STARTUP, len(plan.try_first))


def foreseeable(plan: SweepPlan) -> Iterator[Point]:
    """Yield the values of all trials that depend on no result."""
    tried: list[Point] = []
    while len(tried) < plan.max_runs and not learns(plan, len(tried)):
        point = next_point(plan, tried)
        if point is None:
            return
        tried.append(point)
        yield point


def _first(plan: SweepPlan, number: int, known: set[Hashable]) -> Point | None:
    """The values to begin with; what they leave out is chosen as for any other trial."""
    given = plan.try_first[number]
    if plan.method is SweepMethod.GRID:
        fitting: Params = {**plan.params, **{name: (value,) for name, value in given.items()}}
        return _unknown(plan, known, _all(fitting)) or _unknown(plan, known, _all(plan.params))
    drawn = (space.draw(plan.params, rng, given) for rng in islice(_randoms(plan, number), TRIES))
    return _unknown(plan, known, drawn) or _random(plan, number, known)


def _random(plan: SweepPlan, number: int, known: set[Hashable]) -> Point | None:
    size = space.size(plan.params)
    if size is not None and len(known) >= size:
        return None
    drawn = (space.draw(plan.params, rng) for rng in islice(_randoms(plan, number), TRIES))
    found = _unknown(plan, known, drawn)
    if found or size is None or size > COUNTABLE:
        return found
    left = [point for point in _all(plan.params) if space.key(plan.params, point) not in known]
    return left[int(random.Random(f"{plan.seed} {number} left").random() * len(left))]


def _randoms(plan: SweepPlan, number: int) -> Iterator[random.Random]:
    """Yield random generators for one trial. A text as the seed gives the same numbers everywhere: it is hashed with
    SHA-512."""
    for again in count():
        yield random.Random(f"{plan.seed} {number} {again}")


def _indexes(plan: SweepPlan, number: int) -> Iterator[int]:
    """The numbers of the grid's points that may be untried: all before were tried, in order."""
    yield from range(number - len(plan.try_first), space.size(plan.params) or 0)


def _all(params: Params) -> Iterator[Point]:
    return (space.at(params, index) for index in range(space.size(params) or 0))


def _unknown(plan: SweepPlan, known: set[Hashable], points: Iterator[Point]) -> Point | None:
    return next((point for point in points if space.key(plan.params, point) not in known), None)
