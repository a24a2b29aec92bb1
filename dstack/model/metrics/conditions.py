"""What `dstack runs --where` and `--sort` ask for: conditions on variables and metrics of runs."""

from __future__ import annotations

import re

from msgspec import Struct

from dstack.errors import UsageError
from dstack.model.metrics.goal import goal_of
from dstack.model.metrics.values import number

FORM = re.compile(r"\s*([A-Za-z_][\w./@-]*?)\s*(<=|>=|!=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)
AND = re.compile(r"\s+and\s+", re.IGNORECASE)
MOST = 20
"""Conditions of one search."""


class RunCondition(Struct, frozen=True):
    """A variable or metric, `<`, `<=`, `>`, `>=`, `=` or `!=`, and a value."""

    name: str
    operator: str
    value: str

    @property
    def number(self) -> float | None:
        return number(self.value)


def conditions(text: str) -> list[RunCondition]:
    """Parse `lr<0.01 and optimizer=adam`. Raises UsageError."""
    parts = [part for part in AND.split(text.strip()) if part]
    if len(parts) > MOST:
        raise UsageError(f"--where has {len(parts)} conditions; it may have {MOST}")
    return [condition(part) for part in parts]


def condition(text: str) -> RunCondition:
    """Parse one condition. Raises UsageError."""
    found = FORM.fullmatch(text)
    if not found or not found[3]:
        example = "write a name, one of < <= > >= = !=, and a value, such as 'lr<0.01'"
        raise UsageError(f"'{text}' is not a condition; {example}")
    wanted = RunCondition(found[1], "=" if found[2] == "==" else found[2], found[3].strip("'\""))
    if wanted.operator not in ("=", "!=") and wanted.number is None:
        raise UsageError(f"'{text}' compares with '{found[3]}', which is not a number; use = or != for text")
    return wanted


class RunOrder(Struct, frozen=True):
    """A variable or metric to sort by, and whether the greatest comes first."""

    name: str
    descending: bool


def order(text: str) -> RunOrder:
    """Parse `val_loss`: the best first, or else the least; `-val_loss` is the other way round. Raises UsageError."""
    name = text.removeprefix("-")
    if not name:
        raise UsageError("--sort needs the name of a variable or metric", hint="dstack runs --sort val_loss")
    return RunOrder(name, (goal_of(name) == "maximize") != text.startswith("-"))
