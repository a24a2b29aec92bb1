"""Checks of triggers, in a project's file and in a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from dstack.model.project import locations
from dstack.model.project.nodes import FieldPath, Report
from dstack.model.project.workflow import Push, Trigger, Values, Workflow
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.units import LONGEST_SPAN, is_span, lacks_unit, span

SHORTEST_POLL = 1.0
"""Seconds."""

Trouble = tuple[tuple[str, ...], str]
"""The keys that lead to a value of a trigger, and what is wrong, in words that follow its name."""


def triggers(
    report: Report,
    found: Sequence[Trigger],
    workflows: Sequence[Workflow],
    shared: Values,
    own: Mapping[str, Values],
) -> None:
    """Check the triggers of a project's file. The workflows' own checks come before."""
    first: dict[str, int] = {}
    names = [workflow.name for workflow in workflows]
    for index, trigger in enumerate(found):
        where = FieldPath(("triggers", index)).named(f"trigger '{trigger.name}'")
        if trigger.name in first:
            at = first[trigger.name]
            report.add(where, f"two triggers are named '{trigger.name}'; rename this one or the one on line {at}")
        first.setdefault(trigger.name, report.lines[where.path])
        if trigger.workflow and trigger.workflow not in names:
            near = did_you_mean(trigger.workflow, names)
            report.add(where / "workflow", f"trigger '{trigger.name}' runs unknown workflow '{trigger.workflow}'{near}")
        else:
            _variables(report, trigger, where / "variables", {**shared, **own.get(trigger.workflow, {})})
        for keys, trouble in troubles(trigger):
            place = where
            for key in keys:
                place /= int(key) if key.isdigit() else key
            at_line = place if place.path in report.lines else where
            report.add(at_line, f"{place} {trouble}")


def _variables(report: Report, trigger: Trigger, where: FieldPath, known: Values) -> None:
    for name in trigger.variables:
        if name and name not in known:
            near = did_you_mean(name, known)
            report.add(where / name, f"unknown variable '{name}' in {where}{near}")


def troubles(trigger: Trigger) -> Iterator[Trouble]:
    """Yield what is wrong with a trigger by itself."""
    if (trigger.cron is None) == (trigger.push is None):
        yield (), "needs either 'cron' or 'push'"
    if trigger.timezone is not None and trigger.cron is None:
        yield ("timezone",), "has no meaning without 'cron'; remove it"
    if trigger.push and trigger.code != "snapshot":
        yield ("code",), "has no meaning beside 'push', which runs the pushed commit; remove it"
    yield from _schedule(trigger)
    yield from _span(("deadline",), trigger.deadline)
    if trigger.push:
        yield from _push(trigger.push)


def _push(push: Push) -> Iterator[Trouble]:
    yield from _span(("push", "every"), push.every)
    if is_span(push.every) and span(push.every) < SHORTEST_POLL:
        yield ("push", "every"), "is shorter than a second; write 1m"
    for index, path in enumerate(push.paths):
        if path and (trouble := locations.trouble(path)):
            yield ("push", "paths", str(index)), trouble


def _span(keys: tuple[str, ...], text: str | None) -> Iterator[Trouble]:
    if text and is_span(text) and lacks_unit(text):
        yield keys, f"is '{text}', which has no unit; write a unit, such as {text}h, {text}m or {text}s"
    elif text and is_span(text) and span(text) > LONGEST_SPAN:
        yield keys, "is too long; write at most 3650d"


def _schedule(trigger: Trigger) -> Iterator[Trouble]:
    from dstack.model.triggers.cron import Cron, time_zone

    for key, text, read in (("timezone", trigger.timezone, time_zone), ("cron", trigger.cron, Cron)):
        try:
            if text:
                read(text)
        except ValueError as error:
            yield (key,), f"can't be used: {error}"


def refusal(trigger: Trigger) -> str | None:
    """Return what is wrong with a trigger that comes in a request, in one sentence; None if nothing is."""
    with suppress(StopIteration):
        keys, trouble = next(troubles(trigger))
        return f"trigger '{trigger.name}': {'.'.join(keys) or 'it'} {trouble}"
    return None
