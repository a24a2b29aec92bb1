"""What a person types: `a,b,c`, `1..10`, `0..1:0.1` or `1e-5..1e-1:log`; and `median:5`."""

from __future__ import annotations

import re

from dstack.errors import UsageError
from dstack.model.project.workflow import Interval, StopEarly
from dstack.model.sweep.plan import HELP
from dstack.model.sweep.space import Choices

_NUMBER = r"[-+]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?"
INTERVAL = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(.*))?")
EXAMPLES = "write a,b,c or 1..10 or 0..1:0.1 or 1e-5..1e-1:log"
STOP_RULE = re.compile(r"(median|asha)(?::([0-9]{1,9}))?")


def choices(name: str, text: str) -> Choices:
    """Return the values that `--name TEXT` stands for; one alone is a tuple of one. Raises UsageError."""
    if found := INTERVAL.fullmatch(text):
        return _interval(name, *found.groups())
    values = tuple(text.split(","))
    if len(values) > 1 and "" in values:
        raise UsageError(f"--{name}: '{text}' has an empty value; {EXAMPLES}", hint=HELP)
    return values


def _interval(name: str, low: str, high: str, rest: str | None) -> Interval:
    if rest is None:
        return Interval(min=low, max=high)
    if rest == "log":
        return Interval(min=low, max=high, scale="log")
    if re.fullmatch(_NUMBER, rest):
        return Interval(min=low, max=high, step=rest)
    raise UsageError(f"--{name}: '{rest}' is neither a step nor 'log'; {EXAMPLES}", hint=HELP)


def stop_early(text: str) -> StopEarly:
    """Return what `--stop-early RULE[:WARMUP]` stands for. Raises UsageError."""
    found = STOP_RULE.fullmatch(text)
    if found is None:
        raise UsageError(
            f"--stop-early: '{text}' is not a rule; write median, asha, or median:5 for a warmup", hint=HELP
        )
    rule, warmup = found.groups()
    return StopEarly(rule=rule) if warmup is None else StopEarly(rule=rule, warmup=int(warmup))
