"""What to sweep over: the workflow's `sweep:`, changed by the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from dstack.errors import UsageError
from dstack.model.project.workflow import MetricGoal, Params, SweepSettings
from dstack.model.sweep.written import choices, stop_early

Overrides = list[tuple[str, str]]


def settings_of(
    before: SweepSettings | None, known: Sequence[str], overrides: Overrides, options: Mapping[str, Any]
) -> tuple[SweepSettings, Overrides]:
    """Return the settings of a sweep, and the variables that have one value in all of its trials. `known` are the
    workflow's variables, `overrides` the words after its name, `options` those of the command itself: None and empty
    ones were not given. Raises UsageError."""
    varied, fixed = sorted_out(known, overrides)
    base = before or SweepSettings()
    single = {name for name, _ in fixed}
    params = {name: values for name, values in {**base.params, **varied}.items() if name not in single}
    changed = single.union(varied)
    first = [{name: value for name, value in values.items() if name not in changed} for values in base.try_first]
    given: dict[str, Any] = {
        name: options[name]
        for name in ("method", "seed", "max_runs", "parallel", "max_failures")
        if options[name] is not None
    }
    if options["stop_early"] is not None:
        given["stop_early"] = stop_early(options["stop_early"])
    if options["try_first"]:
        first = [point(known, text) for text in options["try_first"]]
    metric = metric_of(base.metric, options["metric"], options["goal"], options["of"])
    return replace(base, params=params, metric=metric, try_first=tuple(filter(None, first)), **given), fixed


def sorted_out(known: Sequence[str], overrides: Overrides) -> tuple[Params, Overrides]:
    """Tell the variables that a sweep varies from those with one value."""
    varied: Params = {}
    fixed: dict[str, str] = {}
    for written, text in overrides:
        name = written if written in known else written.replace("-", "_")
        values = choices(written, text)
        varied.pop(name, None)
        fixed.pop(name, None)
        if isinstance(values, tuple) and len(values) == 1:
            fixed[name] = text
        else:
            varied[name] = values
    return varied, list(fixed.items())


def metric_of(before: MetricGoal | None, name: str | None, goal: str | None, of: str | None) -> MetricGoal | None:
    """Return the metric of a sweep. Raises UsageError for a goal without a metric."""
    if name is not None:
        before = MetricGoal(name=name)
    if before is None:
        if goal or of:
            raise UsageError(f"{'--goal' if goal else '--of'} needs a metric", hint="add --metric NAME")
        return None
    return replace(before, goal=goal or before.goal, of=of or before.of)


def point(known: Sequence[str], text: str) -> dict[str, str]:
    """Return the values in `NAME=VALUE,NAME=VALUE`. Raises UsageError."""
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise UsageError(f"--try-first: '{part}' is not NAME=VALUE", hint="--try-first lr=0.001,optimizer=adam")
        found[name if name in known else name.replace("-", "_")] = value
    return found
