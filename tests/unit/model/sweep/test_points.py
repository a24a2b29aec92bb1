"""The values that a sweep tries: inside their bounds, reproducible, and no point twice."""

from __future__ import annotations

import math
import re
from itertools import product
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dstack.errors import UsageError
from dstack.model.project import intervals
from dstack.model.project.workflow import Interval, MetricGoal, Params, StopEarly, SweepSettings, Workflow
from dstack.model.sweep import space
from dstack.model.sweep.plan import SweepPlan, plan
from dstack.model.sweep.points import STARTUP, foreseeable, learns, next_point

TRAIN = Workflow(name="train", image="busybox", commands=("true",))
KNOWN = ("lr", "layers", "optimizer", "dropout")
LR = Interval(min="1e-5", max="1e-1", scale="log")
LAYERS = Interval(min="2", max="8")
DROPOUT = Interval(min="0", max="0.5", step="0.1")


def planned(params: Params, **settings: Any) -> SweepPlan:
    return plan(SweepSettings(params=params, **settings), TRAIN, KNOWN, settings.get("seed", 1))


def values_of(params: Params, name: str, **settings: Any) -> list[str]:
    return [point[name] for point in foreseeable(planned(params, **settings))]


@st.composite
def any_interval(draw: st.DrawFn) -> Interval:
    kind = draw(st.sampled_from(["whole", "whole log", "steps", "linear", "log"]))
    if kind.startswith("whole"):
        low = draw(st.integers(1 if "log" in kind else -1000, 1000))
        high = low + draw(st.integers(1, 5000))
        return Interval(min=str(low), max=str(high), scale="log" if "log" in kind else "linear")
    low = draw(st.floats(1e-12 if kind == "log" else -1e6, 1e6, allow_subnormal=False))
    high = low + abs(low) * draw(st.floats(1e-4, 1e4)) + 1e-9
    ends = {"min": f"{low:.9g}", "max": f"{high:.9g}"}
    if kind == "steps":
        return Interval(**ends, step=f"{(float(ends['max']) - float(ends['min'])) / draw(st.integers(1, 99)):.3g}")
    return Interval(**ends, scale=kind)


@given(any_interval(), st.floats(0, 1, exclude_max=True))
def test_every_value_is_inside_its_interval_and_every_program_reads_it(interval: Interval, share: float) -> None:
    if intervals.trouble(interval):
        return
    text = intervals.between(interval, share)

    assert intervals.contains(interval, text)
    assert float(interval.min) <= float(text) <= float(interval.max)
    assert isinstance(yaml.safe_load(text), int | float)
    assert "e" not in text or re.fullmatch(r"-?[0-9]\.[0-9]+e[-+][0-9]+", text)
    if intervals.whole(interval):
        assert re.fullmatch("-?[0-9]+", text)
    if intervals.count(interval) is not None:
        index = intervals.index_of(interval, text)
        assert index is not None
        assert float(intervals.at(interval, index)) == float(text)


@given(any_interval())
def test_the_first_and_the_last_value_are_tried(interval: Interval) -> None:
    if intervals.trouble(interval):
        return
    length = float(interval.max) - float(interval.min)
    assert float(intervals.between(interval, 0.0)) == pytest.approx(float(interval.min), rel=1e-9, abs=length * 1e-5)
    last = float(intervals.between(interval, 1 - 1e-12))
    assert float(interval.max) - last <= float(interval.step or length * 1e-5 + 1e-9 * abs(last))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        (DROPOUT, ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]),
        (LAYERS, ["2", "3", "4", "5", "6", "7", "8"]),
        (Interval(min="1e-5", max="3e-5", step="1e-5"), ["0.00001", "0.00002", "0.00003"]),
        (Interval(min="16", max="64", step="16"), ["16", "32", "48", "64"]),
        (Interval(min="1e-12", max="2e-12", step="1e-12"), ["1.0e-12", "2.0e-12"]),
        (Interval(min="-0.2", max="0.2", step="0.2"), ["-0.2", "0.0", "0.2"]),
    ],
)
def test_steps_are_written_as_a_person_would(interval: Interval, expected: list[str]) -> None:
    assert values_of({"lr": interval}, "lr") == expected


def test_on_a_logarithmic_scale_each_order_of_magnitude_is_as_likely() -> None:
    exponents = [math.floor(math.log10(float(text))) for text in values_of({"lr": LR}, "lr", max_runs=2000)]

    assert {exponent: round(exponents.count(exponent) / 500) for exponent in range(-5, -1)} == dict.fromkeys(
        range(-5, -1), 1
    )


def test_random_values_are_those_of_the_seed_in_every_version_of_python() -> None:
    params: Params = {"lr": LR, "layers": LAYERS, "optimizer": ("adam", "sgd"), "dropout": DROPOUT}
    found = [" ".join(point.values()) for point in foreseeable(planned(params, max_runs=4, seed=1))]

    assert found == [
        "0.0000120003 8 adam 0.3",
        "0.0653048 3 sgd 0.0",
        "0.000190261 2 sgd 0.2",
        "0.000186716 4 adam 0.1",
    ]
    assert found != [" ".join(point.values()) for point in foreseeable(planned(params, max_runs=4, seed=2))]


def test_a_grid_is_complete() -> None:
    params: Params = {"optimizer": ("a", "b", "c"), "layers": Interval(min="1", max="4"), "dropout": ("x", "y")}
    found = [tuple(point.values()) for point in foreseeable(planned(params))]

    assert found == list(product("abc", "1234", "xy"))


@pytest.mark.parametrize("method", ["grid", "random"])
def test_a_space_is_used_up_without_a_point_twice(method: str) -> None:
    params: Params = {"optimizer": ("a", "b", "c"), "layers": LAYERS}
    made = planned(params, method=method, max_runs=1000)
    found = [tuple(point.values()) for point in foreseeable(made)]

    assert sorted(found) == sorted(product("abc", "2345678"))
    assert next_point(made, list(foreseeable(made))) is None


@given(st.integers(0, 2**31 - 1))
def test_the_values_to_begin_with_come_first_and_once(seed: int) -> None:
    first = ({"optimizer": "b", "layers": "3"}, {"layers": "8"}, {"layers": "8"})
    for method in ("grid", "random"):
        made = planned({"optimizer": ("a", "b"), "layers": LAYERS}, method=method, try_first=first, seed=seed)
        found = list(foreseeable(made))
        assert found[0] == first[0]
        assert [point["layers"] for point in found[1:3]] == ["8", "8"]
        assert len({tuple(point.values()) for point in found}) == len(found) == 14


def test_values_that_are_written_otherwise_are_equal() -> None:
    params: Params = {"lr": LR, "optimizer": ("1", "1.0")}

    same, other = {"lr": "1e-3", "optimizer": "1"}, {"lr": "0.001", "optimizer": "1"}
    assert space.key(params, same) == space.key(params, other)
    assert space.key(params, same) != space.key(params, {**same, "optimizer": "1.0"})


def test_tpe_learns_after_its_random_trials() -> None:
    made = planned({"lr": LR}, method="tpe", metric=MetricGoal(name="loss"), max_runs=40)

    assert len(list(foreseeable(made))) == STARTUP
    assert [learns(made, number) for number in (0, STARTUP - 1, STARTUP, 39)] == [False, False, True, True]


@pytest.mark.parametrize(
    ("params", "settings", "words"),
    [
        ({}, {}, "nothing to vary"),
        ({"lrr": ("1",)}, {}, "no variable 'lrr'; did you mean 'lr'?"),
        ({"lr": ()}, {}, "'lr' has no values"),
        ({"lr": ("1", "2", "1")}, {}, "'lr' has the value '1' twice"),
        ({"lr": LR}, {"method": "grid"}, "a grid can't try all values of 'lr'"),
        ({"lr": LR}, {}, "infinitely many combinations"),
        ({"lr": Interval(min="1", max="20000")}, {}, "20,000 combinations"),
        ({"lr": Interval(min="5", max="2")}, {}, "min 5, which is not below max 2"),
        ({"lr": Interval(min="0", max="1", scale="log")}, {}, "'scale: log' needs one above 0"),
        ({"lr": Interval(min="1", max="2", scale="log", step="1")}, {}, "leave out one"),
        ({"lr": Interval(min="1", max="2", step="0")}, {}, "has step 0"),
        ({"lr": Interval(min="1", max="2", step="3")}, {}, "has step 3"),
        ({"lr": Interval(min="0", max="1e300", step="1e-300")}, {}, "more than a billion steps"),
        ({"lr": Interval(min="0", max="1e999")}, {"max_runs": 3}, "too large"),
        ({"lr": Interval(min="-1e308", max="1e308")}, {"max_runs": 3}, "too large"),
        ({"lr": Interval(min="0", max="99999999999999999999")}, {"max_runs": 3}, "too large"),
        ({"lr": LR}, {"method": "tpe", "max_runs": 3}, "method tpe needs a metric"),
        ({"layers": LAYERS}, {"stop_early": StopEarly(rule="asha")}, "stop-early needs a metric"),
        ({"layers": LAYERS}, {"metric": MetricGoal(name="thing")}, "does not say whether less or more"),
        ({"layers": LAYERS}, {"try_first": ({"layer": "2"},)}, "no parameter 'layer'; did you mean 'layers'?"),
        ({"layers": LAYERS}, {"try_first": ({"layers": "9"},)}, "'9' is not a value of 'layers'"),
        ({"optimizer": ("adam",)}, {"try_first": ({"optimizer": "adm"},)}, "did you mean 'adam'?"),
        ({"layers": LAYERS}, {"try_first": ({"layers": "2"}, {"layers": "2"})}, "the same values twice"),
        ({"layers": LAYERS}, {"try_first": ({"layers": "2"}, {"layers": "3"}), "max_runs": 1}, "max-runs is 1"),
    ],
)
def test_settings_that_make_no_sense_say_why(params: Params, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        planned(params, **settings)

    assert words in refused.value.message
    assert refused.value.exit_code == 2
    assert refused.value.hint


def test_a_metric_that_the_workflow_does_not_read_is_refused() -> None:
    workflow = Workflow(name="train", image="busybox", commands=("true",), metrics={"val_loss": r"(\S+)"})
    settings = SweepSettings(params={"layers": LAYERS}, metric=MetricGoal(name="val_los"))

    with pytest.raises(UsageError, match="did you mean 'val_loss'"):
        plan(settings, workflow, KNOWN, 1)
