"""Sweeps without jobs: the values of trials come from a function."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from msgspec.structs import replace

from dstack.engine.sweeps import tpe
from dstack.model.job.status import Status
from dstack.model.project.workflow import Interval, MetricGoal, Params
from dstack.model.sweep import points
from dstack.model.sweep.plan import SweepPlan
from dstack.model.sweep.space import Point
from dstack.model.sweep.status import SweepMethod
from dstack.model.sweep.sweep import Trial

Function = Callable[[Point], float]


def branin(point: Point) -> float:
    """The function of Branin, with three minima of 0.397887 (https://www.sfu.ca/~ssurjano/branin.html)."""
    x, y = float(point["x"]), float(point["y"])
    b, c, t = 5.1 / (4 * math.pi**2), 5 / math.pi, 1 / (8 * math.pi)
    return (y - b * x**2 + c * x - 6) ** 2 + 10 * (1 - t) * math.cos(x) + 10


BRANIN: Params = {"x": Interval(min="-5.0", max="10.0"), "y": Interval(min="0.0", max="15.0")}


def training(point: Point) -> float:
    """Something like a loss after training: of four parameters, with noise that depends on them alone."""
    far = (math.log10(float(point["lr"])) + 2.8) ** 2 + (int(point["layers"]) - 5) ** 2 / 8
    far += 3 * (float(point["dropout"]) - 0.2) ** 2 + {"adam": 0.0, "sgd": 0.4, "rmsprop": 0.2}[point["optimizer"]]
    return far + random.Random(str(sorted(point.items()))).gauss(0, 0.05)


TRAINING: Params = {
    "lr": Interval(min="1e-6", max="1.0", scale="log"),
    "layers": Interval(min="1", max="12"),
    "dropout": Interval(min="0", max="0.6", step="0.1"),
    "optimizer": ("sgd", "rmsprop", "adam"),
}


def planned(method: SweepMethod, params: Params, seed: int, most: int = 40) -> SweepPlan:
    metric = MetricGoal(name="loss", goal="minimize")
    return SweepPlan(method=method, params=params, seed=seed, max_runs=most, metric=metric)


def played(plan: SweepPlan, function: Function, parallel: int = 1) -> list[Trial]:
    """Play a sweep of which so many trials run at the same time, and end in order."""
    trials: list[Trial] = []
    while len(trials) < plan.max_runs:
        trials.append(Trial(sweep="s", number=len(trials) + 1, values=chosen(plan, trials)))
        if len(trials) >= parallel:
            end(trials, len(trials) - parallel, function)
    for index in range(len(trials) - parallel + 1, len(trials)):
        end(trials, index, function)
    return trials


def chosen(plan: SweepPlan, trials: list[Trial]) -> Point:
    """Choose the values of the next trial as the drive does."""
    if points.learns(plan, len(trials)) and (found := tpe.ask(plan, trials)):
        return found
    found = points.next_point(plan, [trial.values for trial in trials])
    assert found is not None
    return found


def end(trials: list[Trial], index: int, function: Function) -> None:
    value = function(trials[index].values)
    trials[index] = replace(trials[index], status=Status.DONE, value=value, submitted=True)


def best(trials: list[Trial]) -> float:
    return min(trial.value for trial in trials if trial.value is not None)
