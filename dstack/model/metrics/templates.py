"""Reads lines that differ from an earlier one only in numbers, as most lines of a log do, in a fifth of the time."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from dstack.model.metrics.pairs import Pair
from dstack.model.metrics.values import NUMBER

STANDING = re.compile(r"(?<![A-Za-z_\d])(\d+)")
"""A number that is not part of a name."""
MOST = 4
"""Templates for lines with the same first character."""
MOST_LEARNT = 64
"""A reader learns no more: that takes as long as reading a hundred lines."""

Read = tuple["float | None", "list[tuple[str, float]]"]


class LineTemplate:
    """A line with slots. Every line that fits has the pairs that the first one has."""

    def __init__(self, line: str, chosen: Sequence[Pair], step: Pair | None) -> None:
        parts, at = [], 0
        for pair in chosen:
            parts += [_loose(line[at : pair.begin]), re.escape(line[pair.begin : pair.end])]
            parts += [_loose(line[pair.end : pair.at]), f"({NUMBER})"]
            at = pair.after
        self.fits = re.compile("".join([*parts, _loose(line[at:])]), re.ASCII).fullmatch
        self.step = chosen.index(step) if step else None
        self.names = [pair.name for pair in chosen if pair is not step]

    def read(self, line: str) -> Read | None:
        """Return the step, None without one, and the metrics of a line; None if it does not fit."""
        match = self.fits(line)
        if match is None:
            return None
        values = list(map(float, match.groups()))
        step = None if self.step is None else values.pop(self.step)
        if step is not None and not math.isfinite(step):
            return None
        return step, list(zip(self.names, values, strict=True))


class Templates:
    """Those of a reader, by the first character of their lines."""

    def __init__(self) -> None:
        self.known: dict[str, list[LineTemplate]] = {}
        self.learnt = 0

    def read(self, line: str) -> Read | None:
        """Read a line by a template that it fits, None without one."""
        for template in self.known.get(line[0], ()):
            if (found := template.read(line)) is not None:
                return found
        return None

    def learn(self, line: str, chosen: Sequence[Pair], step: Pair | None) -> None:
        """Make a template of a line, unless there are enough."""
        known = self.known.setdefault(line[0], [])
        if len(known) < MOST and self.learnt < MOST_LEARNT and all(pair.lasting for pair in chosen):
            self.learnt += 1
            known.append(LineTemplate(line, chosen, step))


def _loose(text: str) -> str:
    return "".join(r"\d+" if part.isdigit() and part.isascii() else re.escape(part) for part in STANDING.split(text))
