"""Which running trials have lost."""

from __future__ import annotations

import math

import pytest

from dstack.model.project.workflow import MetricGoal, StopEarly
from dstack.model.sweep.stopping import Curve, Loss, curve, lost

LOSS = MetricGoal(name="loss", goal="minimize")
SCORE = MetricGoal(name="score", goal="maximize")
MEDIAN, ASHA = StopEarly(rule="median", warmup=3), StopEarly(rule="asha", warmup=1)


def flat(value: float, steps: int, metric: MetricGoal = LOSS) -> Curve:
    return curve(metric, [(step, value) for step in range(1, steps + 1)])


def test_a_trial_below_the_median_goes_on_and_one_above_it_lost() -> None:
    others = [flat(value, 10) for value in (1, 2, 3)]

    assert lost(MEDIAN, LOSS, flat(2, 5), others) is None
    assert lost(MEDIAN, LOSS, flat(2.5, 5), others) == Loss(step=5, value=2.5, limit=2, others=3)


def test_what_is_better_depends_on_the_goal() -> None:
    others = [flat(value, 10, SCORE) for value in (1, 2, 3)]

    assert lost(MEDIAN, SCORE, flat(3, 5, SCORE), others) is None
    assert lost(MEDIAN, SCORE, flat(1.5, 5, SCORE), others) == Loss(step=5, value=1.5, limit=2, others=3)


def test_nobody_loses_before_the_warmup_or_against_few() -> None:
    others = [flat(value, 10) for value in (1, 2, 3)]

    assert lost(MEDIAN, LOSS, flat(9, 2), others) is None
    assert lost(MEDIAN, LOSS, flat(9, 5), others[:2]) is None
    assert lost(MEDIAN, LOSS, flat(9, 11), others) is None  # no other has come as far
    assert lost(MEDIAN, LOSS, curve(LOSS, []), others) is None


def test_the_best_value_so_far_counts() -> None:
    others = [flat(value, 10) for value in (1, 2, 3)]
    own = curve(LOSS, [(1, 0.5), (2, 9), (5, 9)])

    assert lost(MEDIAN, LOSS, own, others) is None


def test_asha_lets_the_best_third_pass_each_rung() -> None:
    others = [flat(value, 9) for value in (1, 2, 3, 4, 5)]

    assert lost(ASHA, LOSS, flat(1.5, 4), others) is None
    assert lost(ASHA, LOSS, flat(2.5, 4), others) == Loss(step=3, value=2.5, limit=2, others=5)
    assert lost(ASHA, LOSS, flat(9, 1), others[:1]) is None


def test_a_trial_that_diverges_has_lost() -> None:
    others = [flat(value, 9) for value in (1, 2, 3, 4, 5)]
    own = curve(LOSS, [(step, math.nan) for step in range(5)])

    for rule in (MEDIAN, ASHA):
        found = lost(rule, LOSS, own, others)
        assert found is not None
        assert found.value == math.inf


def test_steps_that_go_back_are_no_step_forward() -> None:
    assert curve(LOSS, [(1, 3.0), (5, 2.0), (2, 1.0)]) == Curve((1, 5, 5), (3.0, 2.0, 1.0))


@pytest.mark.parametrize(("until", "best"), [(0.5, math.inf), (1, 3.0), (4, 3.0), (9, 1.0)])
def test_the_best_value_until_a_step(until: float, best: float) -> None:
    assert curve(LOSS, [(1, 3.0), (5, 2.0), (6, 1.0)]).best(until) == best
