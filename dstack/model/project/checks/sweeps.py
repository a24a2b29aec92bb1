"""Checks of `sweep:`, beyond what its types check. What depends on options is checked when a sweep is planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from dstack.model.project import intervals
from dstack.model.project.nodes import FieldPath, Report
from dstack.model.project.workflow import Interval, SweepSettings
from dstack.model.text.suggest import did_you_mean


def params(report: Report, settings: SweepSettings, where: FieldPath) -> None:
    """Check the values of each parameter, and those to begin with."""
    for name, values in settings.params.items():
        report.refuse(where / "params" / name, trouble(values))
    for index, first in enumerate(settings.try_first):
        for name, value in first.items():
            here = where / "try-first" / index / name
            if settings.params and name not in settings.params:
                report.add(here, f"'{name}' is not a parameter of {where}{did_you_mean(name, settings.params)}")
            elif name in settings.params and not contains(settings.params[name], value):
                report.add(here, f"'{value}' is not one of the values of '{name}' in {where}")


def variables(report: Report, settings: SweepSettings, where: FieldPath, known: Collection[str]) -> None:
    """Check that every parameter is a variable of the workflow."""
    for name in settings.params:
        if name not in known:
            here = where / "params"
            report.add(here / name, f"unknown variable '{name}' in {here}{did_you_mean(name, known)}")


def trouble(values: tuple[str, ...] | Interval) -> str | None:
    """Return what is wrong with a parameter, in words that follow its name."""
    if isinstance(values, Interval):
        return intervals.trouble(values)
    if not values:
        return "has no values; add at least one"
    if len(set(values)) == len(values):
        return None
    return f"has the value '{Counter(values).most_common(1)[0][0]}' twice; remove one"


def contains(values: tuple[str, ...] | Interval, value: str) -> bool:
    """Whether a parameter may have this value. One that is reported itself may have any."""
    if isinstance(values, Interval):
        return intervals.trouble(values) is not None or intervals.contains(values, value)
    return value in values
