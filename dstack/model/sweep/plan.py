"""The plan of a sweep: its settings, checked and complete."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from dstack.errors import UsageError
from dstack.model.metrics.goal import goal_of
from dstack.model.project.checks import sweeps as sweep_checks
from dstack.model.project.environment import RESERVED
from dstack.model.project.workflow import (
    Interval,
    MetricGoal,
    Params,
    Runs,
    Seed,
    StopEarly,
    SweepSettings,
    Workflow,
)
from dstack.model.sweep import space
from dstack.model.sweep.space import Point
from dstack.model.sweep.status import SweepMethod
from dstack.model.text.suggest import did_you_mean

MOST = 10_000
"""Trials of a sweep."""
HELP = "dstack sweep --help"


class SweepPlan(Struct, frozen=True, kw_only=True):
    """What a sweep does. `try_first` may leave out parameters. There are at most `max_runs` trials, of which `parallel`
    are in the queue or running at the same time."""

    method: SweepMethod
    params: Params
    seed: Seed
    max_runs: Runs
    parallel: Runs = 4
    metric: MetricGoal | None = None
    try_first: tuple[Point, ...] = ()
    stop_early: StopEarly | None = None
    max_failures: Runs | None = None


def plan(settings: SweepSettings, workflow: Workflow, known: Sequence[str], seed: int) -> SweepPlan:
    """Return the plan of a sweep over a workflow whose variables are `known`. `seed` is for settings without one.
    Raises UsageError for settings that make no sense."""
    check_params(settings.params, workflow.name, known)
    size = space.size(settings.params)
    method = SweepMethod(settings.method or default_method(size, settings.max_runs))
    check_size(settings, method, size)
    check_read(settings.metric, workflow)
    metric = aimed(settings, method)
    made = SweepPlan(
        method=method,
        params=settings.params,
        seed=settings.seed if settings.seed is not None else seed,
        max_runs=settings.max_runs or min(size or MOST, MOST),
        parallel=settings.parallel,
        metric=metric,
        try_first=settings.try_first,
        stop_early=settings.stop_early,
        max_failures=settings.max_failures,
    )
    check_try_first(made)
    return made


def default_method(size: int | None, most: int | None) -> SweepMethod:
    """A grid if all of it is tried, or else random values."""
    return SweepMethod.GRID if size is not None and size <= (most or size) else SweepMethod.RANDOM


def check_params(params: Params, workflow: str, known: Sequence[str]) -> None:
    """Raise UsageError for parameters that can't be varied."""
    if not params:
        hint = f"dstack sweep {workflow} --NAME SPACE, where SPACE is a,b,c or 1..10 or 0..1:0.1 or 1e-5..1e-1:log"
        raise UsageError(f"nothing to vary: the sweep of '{workflow}' has no parameter", hint=hint)
    for name, values in params.items():
        if name not in known:
            message = f"workflow '{workflow}' has no variable '{name}'{did_you_mean(name, known)}"
            raise UsageError(message, hint=f"list its variables: dstack run {workflow} --help")
        if name in RESERVED:
            raise UsageError(f"'{name}' can't be varied: its value is dstack's own", hint=HELP)
        if why := sweep_checks.trouble(values):
            raise UsageError(f"the sweep's parameter '{name}' {why}", hint=HELP)


def check_size(settings: SweepSettings, method: SweepMethod, size: int | None) -> None:
    """Raise UsageError for a sweep without an end."""
    if method is SweepMethod.GRID and size is None:
        endless = next(name for name, values in settings.params.items() if space.count(values) is None)
        hint = f"give it a step (--{endless} 0..1:0.1), list its values, or add --method random --max-runs 20"
        raise UsageError(f"a grid can't try all values of '{endless}', which has infinitely many", hint=hint)
    if settings.max_runs is None and (size is None or size > MOST):
        what = "there are infinitely many combinations" if size is None else f"there are {size:,} combinations"
        raise UsageError(f"{what}: say how many to try", hint="add --max-runs 20")


def check_read(metric: MetricGoal | None, workflow: Workflow) -> None:
    """Raise UsageError for a metric that is not among those which the workflow names."""
    if metric and isinstance(workflow.metrics, dict) and metric.name not in workflow.metrics:
        near = did_you_mean(metric.name, workflow.metrics)
        message = f"'{workflow.name}' does not read a metric '{metric.name}' from its log{near}"
        raise UsageError(message, hint=f"add it to the workflow: metrics: {{{metric.name}: 'REGEX'}}")


def aimed(settings: SweepSettings, method: SweepMethod) -> MetricGoal | None:
    """Return the metric with its goal. Raises UsageError if the sweep needs a metric or a goal, and has none."""
    metric = settings.metric
    needs = "method tpe" if method is SweepMethod.TPE else "stop-early" if settings.stop_early else None
    if metric is None and needs:
        message = f"{needs} needs a metric, to know which trials are better"
        raise UsageError(message, hint="add --metric NAME --goal minimize, or maximize")
    if metric is None or metric.goal:
        return metric
    goal = goal_of(metric.name)
    if goal is None:
        message = f"the name '{metric.name}' does not say whether less or more of it is better"
        raise UsageError(message, hint="add --goal minimize, or --goal maximize")
    return replace(metric, goal=goal)


def check_try_first(made: SweepPlan) -> None:
    """Raise UsageError for values to begin with that the sweep can't try."""
    if len(made.try_first) > made.max_runs:
        raise UsageError(f"try-first has {len(made.try_first)} entries, and max-runs is {made.max_runs}", hint=HELP)
    for number, values in enumerate(made.try_first, 1):
        if why := first_trouble(values, made.params):
            raise UsageError(f"entry {number} of try-first: {why}", hint=HELP)
    whole = [values for values in made.try_first if values.keys() == made.params.keys()]
    if len({space.key(made.params, values) for values in whole}) < len(whole):
        raise UsageError("try-first has the same values twice; remove one", hint=HELP)


def first_trouble(values: Point, params: Params) -> str | None:
    """Return why a sweep over these parameters can't begin with these values."""
    for name, value in values.items():
        if name not in params:
            return f"the sweep has no parameter '{name}'{did_you_mean(name, params)}"
        if not space.contains(params[name], value):
            choices = params[name]
            near = "" if isinstance(choices, Interval) else did_you_mean(value, choices)
            return f"'{value}' is not a value of '{name}'{near}"
    return None
