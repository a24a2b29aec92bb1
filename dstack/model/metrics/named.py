"""Reads metrics by the regular expressions that a workflow names.

`regex` is a library for its time limit: a slow expression such as `(\\w+\\s?)*$` can keep Python's own busy for hours,
and nothing can interrupt that. `regex` gives up, and lets other threads run meanwhile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import regex

from dstack.model.metrics.automatic import Found
from dstack.model.metrics.values import number

STEP = "step"
"""The metric that gives the others their step."""
PATIENCE = 0.05
"""Seconds for one expression on one line. It is checked now and then, so that a line may take some times as long."""
SLOW_LINES = 3
"""After so many lines that took longer, an expression is not used any longer."""
SLOW = "its regular expression is too slow; make it simpler, without repetitions inside of repetitions"
TRIM = " \t,;:%)]}'\""
"""What may stick to a number that `(\\S+)` took."""


def trouble(expression: str) -> str | None:
    """Return what is wrong with an expression, in words that follow its name; None if it can be used."""
    try:
        groups = regex.compile(expression).groups
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        return f"is not a valid regular expression: {error}"
    if groups != 1:
        return f"must have one group (...) around the number, and has {groups}; write (?:...) for the others"
    return None


def beginning(expression: str) -> str:
    """Return a text that is in all lines that match, perhaps an empty one: to look for it takes no time."""
    if "|" in expression or "(?" in expression:
        return ""
    plain, rest = re.fullmatch(r"\^?([\w=: ,/-]*)(.*)", expression, re.DOTALL).groups()  # type: ignore[union-attr]
    return plain[:-1] if rest[:1] in ("*", "+", "?", "{") else plain


class Named:
    """Reads line after line. `step` is remembered from lines before. `refused` says by name why expressions are not
    used: they are invalid, or were too slow."""

    def __init__(self, expressions: Mapping[str, str], step: float | None = None) -> None:
        self.refused = {name: why for name, expression in expressions.items() if (why := trouble(expression))}
        self.patterns = {name: regex.compile(expressions[name]) for name in expressions if name not in self.refused}
        self.hints = {name: beginning(expressions[name]) for name in self.patterns}
        self.slow = dict.fromkeys(expressions, 0)
        self.step = step

    def read(self, line: str) -> tuple[float | None, Found]:
        """Return the step and the metrics of a line; no step if none is known."""
        found = [(name, value) for name in [*self.patterns] if (value := self._search(name, line)) is not None]
        step = next((value for name, value in found if name == STEP and value - value == 0), None)
        if step is not None:
            self.step = step
        return self.step, [each for each in found if each[0] != STEP]

    def _search(self, name: str, line: str) -> float | None:
        if self.hints[name] not in line:
            return None
        try:
            match = self.patterns[name].search(line, timeout=PATIENCE, concurrent=True)
        except TimeoutError:
            self._too_slow(name)
            return None
        return number(match[1].strip(TRIM)) if match and match[1] else None

    def _too_slow(self, name: str) -> None:
        self.slow[name] += 1
        if self.slow[name] >= SLOW_LINES:
            del self.patterns[name]
            self.refused[name] = SLOW
