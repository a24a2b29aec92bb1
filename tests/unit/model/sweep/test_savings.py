"""What stopping early saves on synthetic learning curves, and what it costs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from dstack.model.project.workflow import MetricGoal, StopEarly
from dstack.model.sweep.stopping import Curve, curve, lost

LOSS = MetricGoal(name="loss", goal="minimize")
STEPS = 81
TRIALS = 60
PARALLEL = 6

Learning = Callable[[int], float]


def learning(seed: int) -> Learning:
    """A loss that falls to an end of its own, at a speed of its own, with noise."""
    rng = random.Random(f"curve {seed}")
    end, speed = rng.uniform(0.1, 1.0), rng.uniform(0.02, 0.2)
    return lambda step: end + (2 - end) * math.exp(-speed * step) + random.Random(f"{seed} {step}").gauss(0, 0.02)


def played(rule: StopEarly | None, seed: int) -> tuple[int, float]:
    """Play a sweep, a step of each running trial at a time. Return the steps taken and the best loss at the end."""
    waiting = [learning(seed * 1000 + number) for number in range(TRIALS)]
    running: list[tuple[Learning, list[tuple[float, float]]]] = []
    past: list[Curve] = []
    steps, best = 0, math.inf
    while waiting or running:
        while waiting and len(running) < PARALLEL:
            running.append((waiting.pop(0), []))
        for trial in list(running):
            function, points = trial
            points.append((len(points) + 1, function(len(points) + 1)))
            steps += 1
            others = [*past, *(curve(LOSS, theirs) for _, theirs in running if theirs is not points)]
            if len(points) == STEPS or (rule and lost(rule, LOSS, curve(LOSS, points), others)):
                running.remove(trial)
                past.append(curve(LOSS, points))
                best = min(best, points[-1][1] if len(points) == STEPS else math.inf)
    return steps, best


@pytest.mark.parametrize(("rule", "least"), [("asha", 0.5), ("median", 0.25)])
def test_it_saves_much_and_costs_little(rule: str, least: float) -> None:
    whole, best = played(None, 1)
    steps, found = played(StopEarly(rule=rule, warmup=3), 1)

    assert whole == TRIALS * STEPS
    assert 1 - steps / whole > least
    assert found < best + 0.1
