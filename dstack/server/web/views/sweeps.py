"""Sweeps: their trials, which is the best, and how its value depends on each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dstack.engine.engine import Engine
from dstack.model.api.sweeps import SweepView, TrialView
from dstack.server.roles import owns
from dstack.server.sweeps.views import SweepViews
from dstack.server.web.views.metrics import number
from dstack.store.lookup import sweep_named

LISTED = 100
TRIALS = 500
"""Most trials that a page shows: the best ones if there are more."""
CURVES = 20
"""Most trials whose curves are drawn together."""
WIDTH, HEIGHT, EDGE = 260, 150, 10
"""Pixels of the picture of one parameter."""


@dataclass(frozen=True)
class ParameterPlot:
    """The trials' values over one parameter: points in pixels with the trial's number. `low` and `high` are the ends of
    the axis, of numbers or of the first and last choice."""

    name: str
    points: list[tuple[float, float, TrialView]]
    low: str
    high: str


@dataclass
class SweepPages:
    engine: Engine

    def sweeps(self) -> dict[str, Any]:
        views = SweepViews(self.engine.context)
        return {"sweeps": [views.summary(sweep) for sweep in self.engine.store.sweeps.newest(LISTED)], "number": number}

    def sweep(self, name: str) -> dict[str, Any]:
        recorded = sweep_named(self.engine.store, name)
        view = SweepViews(self.engine.context).sweep(recorded)
        trials = ranked(view)
        return {
            "sweep": view,
            "own": owns(recorded),
            "trials": trials[:TRIALS],
            "parameters": list(dict.fromkeys(name for trial in trials for name in trial.values)),
            "plots": plots(view),
            "curves": ",".join(trial.run for trial in trials[:CURVES]),
            "number": number,
        }


def ranked(view: SweepView) -> list[TrialView]:
    """Return the trials, the best first; those without a value come last, by number."""
    sign = -1 if view.metric and view.metric.goal == "maximize" else 1
    return sorted(view.trials, key=lambda trial: (trial.value is None, sign * (trial.value or 0.0), trial.number))


def plots(view: SweepView) -> list[ParameterPlot]:
    """Return a picture for each parameter of which trials with a value have several values."""
    trials = [trial for trial in view.trials if trial.value is not None]
    names = dict.fromkeys(name for trial in trials for name in trial.values)
    return [plot(name, trials) for name in names if len({trial.values.get(name) for trial in trials}) > 1]


def plot(name: str, trials: Sequence[TrialView]) -> ParameterPlot:
    texts = [trial.values.get(name, "") for trial in trials]
    places, low, high = along(texts)
    values = [trial.value or 0.0 for trial in trials]
    heights = scaled(values)
    points = [
        (round(EDGE + x * (WIDTH - 2 * EDGE), 1), round(HEIGHT - EDGE - y * (HEIGHT - 2 * EDGE), 1), trial)
        for x, y, trial in zip(places, heights, trials, strict=True)
    ]
    return ParameterPlot(name, points, low, high)


def along(texts: Sequence[str]) -> tuple[list[float], str, str]:
    """Return where values lie on an axis from 0 to 1, and its ends: numbers by size, on a logarithmic scale if they
    differ by a factor of 100; everything else in the order in which it comes up."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        choices = list(dict.fromkeys(texts))
        return scaled([float(choices.index(text)) for text in texts]), choices[0], choices[-1]
    low, high = min(numbers), max(numbers)
    if low > 0 and high / low >= 100:
        return scaled([math.log(value) for value in numbers]), number(low), number(high)
    return scaled(numbers), number(low), number(high)


def scaled(values: Sequence[float]) -> list[float]:
    """Return the values as parts of the way from the lowest to the highest."""
    low, high = min(values), max(values)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]
