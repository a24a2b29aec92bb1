"""Finds numbers with names in lines, without being told what to look for (`metrics: auto`).

It reads JSON objects, `name=value` and `name: value`, `loss 0.5` for names that are surely metrics, and tables whose
first column counts steps: as Keras, Lightning, Hugging Face, fastai, tqdm, nanoGPT, XGBoost and scikit-learn print.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from dstack.model.metrics.pairs import Pair, pairs
from dstack.model.metrics.templates import Templates
from dstack.model.metrics.values import LONGEST_NAME, STEPS, name_of, number

Found = list[tuple[str, float]]
"""The metrics of a line: names and values."""

ROUND = re.compile(r"\[(\d{1,15})\]\s")
"""How XGBoost and LightGBM begin a line."""
OTHERWISE = {
    *("v_num", "version", "port", "rank", "pid", "line", "lineno", "level", "levelno"),
    *("time", "timestamp", "ts", "asctime", "created", "elapsed", "eta"),
}
"""Names of numbers that measure nothing, in lower case."""
COLUMNS = re.compile(r"\s{2,}|\s*[\t|]\s*")
METRIC, NOTHING = len(STEPS), len(STEPS) + 1
DEEPEST = 4
"""Maps in maps in a line of JSON."""


class Automatic:
    """Reads line after line. `step` and `columns` are remembered from lines before, see `ReaderState`. `templates` are
    of lines with metrics, `others` of those without."""

    def __init__(self, step: float | None = None, columns: tuple[str, ...] = ()) -> None:
        self.step = step
        self.columns = columns
        self.refused: dict[str, str] = {}
        self.templates, self.others = Templates(), Templates()

    def read(self, line: str) -> tuple[float | None, Found]:
        """Return the step and the metrics of a line; no step if none is known."""
        if known := self.templates.read(line):
            return (self.step if known[0] is None else known[0]), known[1]
        if line[0] == "{" and line.rstrip()[-1] == "}" and (document := decoded(line)) is not None:
            return self._with_step(*sorted_out(flat(document)))
        if not self.columns and self.others.read(line):
            return None, []
        found = pairs(line)
        return self._text(line, found) if found else self._other(line)

    def _text(self, line: str, found: Sequence[Pair]) -> tuple[float | None, Found]:
        first = ROUND.match(line)
        step, metrics = sorted_out((pair.name, pair.value) for pair in found)
        if metrics and not first:
            self.templates.learn(line, *chosen(found))
        return self._with_step(float(first[1]) if first and step is None else step, metrics)

    def _other(self, line: str) -> tuple[float | None, Found]:
        """Read a line without pairs: perhaps it is part of a table."""
        read = self._tabular(line)
        if not self.columns:
            self.others.learn(line, (), None)
        return read

    def _with_step(self, step: float | None, metrics: Found) -> tuple[float | None, Found]:
        if step is None:
            return self.step, metrics
        if not metrics:
            self.step = step
        return step, metrics

    def _tabular(self, line: str) -> tuple[float | None, Found]:
        """Read a row of a table, or a header whose first column counts steps."""
        if self.columns and line.lstrip("| \t")[:1].isdigit():
            cells = line.replace("|", " ").split()
            step = number(cells[0])
            if len(cells) == len(self.columns) and step is not None and math.isfinite(step):
                values = zip(self.columns[1:], map(number, cells[1:]), strict=True)
                return step, [(name, value) for name, value in values if value is not None and rank(name) == METRIC]
        elif line.lstrip("| \t")[:1].lower() in "eisrg" and (columns := header(line)):
            self.columns = columns
        return None, []


@lru_cache(maxsize=1024)
def rank(name: str) -> int:
    """Return which of STEPS a name is; or METRIC, or NOTHING."""
    low = name.lower()
    return STEPS.index(low) if low in STEPS else NOTHING if low in OTHERWISE else METRIC


def sorted_out(found: Iterable[tuple[str, float]]) -> tuple[float | None, Found]:
    """Tell the step from the metrics: of several steps, the one that is first in STEPS."""
    step, best, metrics = None, METRIC, []
    for name, value in found:
        kind = rank(name)
        if kind == METRIC:
            metrics.append((name, value))
        elif kind < best and math.isfinite(value):
            step, best = value, kind
    return step, metrics


def chosen(found: Sequence[Pair]) -> tuple[list[Pair], Pair | None]:
    """Return the pairs that `sorted_out` takes, in order, and the step among them."""
    steps = [pair for pair in found if rank(pair.name) < METRIC and math.isfinite(pair.value)]
    step = min(steps, key=lambda pair: rank(pair.name), default=None)
    return [pair for pair in found if pair is step or rank(pair.name) == METRIC], step


def header(line: str) -> tuple[str, ...]:
    """Return the columns of a table's header, empty for any other line."""
    cells = [cell for cell in COLUMNS.split(line.strip().strip("|").strip()) if cell]
    if len(cells) < 2 or cells[0].lower() not in STEPS or any(cell[0].isdigit() for cell in cells):
        return ()
    return tuple(name_of(cell) for cell in cells)


@lru_cache(maxsize=1024)
def _joined(prefix: str, key: str) -> str:
    return key if not prefix and key.isidentifier() and len(key) <= LONGEST_NAME else name_of(f"{prefix}{key}")


def decoded(line: str) -> Mapping[str, Any] | None:
    """Return a line that is a JSON object, None for any other, such as a Python dictionary."""
    try:
        known = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    return known if isinstance(known, dict) else None


def flat(known: Mapping[str, Any], prefix: str = "", depth: int = 1) -> Iterator[tuple[str, float]]:
    """Yield the numbers of a JSON object; those of an inner one as `outer.inner`."""
    for key, value in known.items():
        name = _joined(prefix, key)
        if not name:
            continue
        if type(value) in (int, float):
            if abs(value) < 1e308:
                yield name, float(value)
        elif isinstance(value, str) and value.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            yield name, float(value)
        elif isinstance(value, dict) and depth < DEEPEST:
            yield from flat(value, f"{name}.", depth + 1)
