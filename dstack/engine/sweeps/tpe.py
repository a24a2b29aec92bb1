"""TPE, by Optuna: the only place that imports it, and only when a sweep asks for values.

Optuna keeps nothing: its study is built from the recorded trials each time. See https://optuna.readthedocs.io,
`create_trial`, `TPESampler(constant_liar=True)`.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dstack.errors import UsageError
from dstack.model.job.status import Status
from dstack.model.project import intervals
from dstack.model.project.workflow import Interval
from dstack.model.sweep import space
from dstack.model.sweep.plan import SweepPlan
from dstack.model.sweep.space import Choices, Point
from dstack.model.sweep.sweep import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

ASKED = 20
"""How often it may propose values that were tried."""


def require_optuna() -> None:
    """Raise UsageError if the server has no Optuna."""
    if find_spec("optuna") is None:
        raise UsageError(
            "method tpe needs Optuna, which is not installed beside the server",
            hint="where the server runs: pip install 'dstack[sweep]'; or choose --method random",
        )


def ask(plan: SweepPlan, trials: Sequence[Trial]) -> Point | None:
    """Return values that promise most, given all trials so far; None if it proposes only values that were tried. The
    same trials give the same values. It takes long: not for the event loop."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: distribution(values) for name, values in plan.params.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that constant_liar and multivariate may change
        sampler = optuna.samplers.TPESampler(
            seed=(plan.seed + len(trials)) % 2**32, n_startup_trials=1, constant_liar=True, multivariate=True
        )
        upward = plan.metric is not None and plan.metric.goal == "maximize"
        study = optuna.create_study(direction="maximize" if upward else "minimize", sampler=sampler)
        study.add_trials([told(plan, trial, distributions) for trial in trials])
        known: set[Hashable] = {space.key(plan.params, trial.values) for trial in trials}
        for _ in range(ASKED):
            proposed = study.ask(distributions).params
            point = {name: written(values, proposed[name]) for name, values in plan.params.items()}
            if space.key(plan.params, point) not in known:
                return point
    return None


def told(plan: SweepPlan, trial: Trial, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return a trial as Optuna knows it. One that was stopped early counts with its last value; one that ended without
    a value failed."""
    from optuna.trial import TrialState, create_trial

    params = {name: number(values, trial.values[name]) for name, values in plan.params.items()}
    given: dict[str, Any] = {"params": params, "distributions": distributions}
    if not trial.finished:
        return create_trial(state=TrialState.RUNNING, **given)
    if trial.value is None or not (trial.beaten or trial.status is Status.DONE):
        return create_trial(state=TrialState.FAIL, **given)
    if trial.status is Status.DONE:
        return create_trial(state=TrialState.COMPLETE, value=trial.value, **given)
    return create_trial(state=TrialState.PRUNED, intermediate_values={int(trial.step or 0): trial.value}, **given)


def distribution(values: Choices) -> BaseDistribution:
    """Return the values of a parameter as Optuna knows them. Of intervals with steps it knows the number of a step."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not isinstance(values, Interval):
        return CategoricalDistribution(values)
    total = intervals.count(values)
    if total is None:
        return FloatDistribution(float(values.min), float(values.max), log=values.scale == "log")
    if values.scale == "log":
        return IntDistribution(int(values.min), int(values.max), log=True)
    return IntDistribution(0, total - 1)


def number(values: Choices, text: str) -> str | float:
    """Return a recorded value as Optuna knows it."""
    if not isinstance(values, Interval):
        return text
    if intervals.count(values) is None:
        return float(text)
    return int(text) if values.scale == "log" else intervals.index_of(values, text) or 0


def written(values: Choices, proposed: Any) -> str:
    """Return a value that Optuna proposes as text."""
    if not isinstance(values, Interval):
        return str(proposed)
    if intervals.count(values) is None:
        return intervals.rounded(values, proposed)
    return str(proposed) if values.scale == "log" else intervals.at(values, proposed)
