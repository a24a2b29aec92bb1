"""Finds numbers with names in lines, without being told what to look for (`metrics: auto`).

It reads JSON objects, `name=value` and `name: value`, `loss 0.5` for names that are surely metrics, and tables whose
first column counts steps: as Keras, Lightning, Hugging Face, fastai, tqdm, nanoGPT, XGBoost and scikit-learn print.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dstack.model.metrics.values import NUMBER, STEPS, name_of, number

Found = list[tuple[str, float]]
"""The metrics of a line: names and values."""

SETS = r"(?i:train(?:ing)?|val(?:id(?:ation)?)?|test|eval(?:uation)?)"
PAIR = re.compile(
    rf"(?<![\w./@-])((?:{SETS}[ ])?[A-Za-z_][\w./@-]*)"
    rf"(['\"]?\s*[=:]\s*['\"]?|[\s\[(#]+)({NUMBER})(?:%(?!\|))?(/\d+)?(?![\w%]|[.:,-]\d)",
    re.ASCII,
)
"""A name, perhaps after the set it was measured on; what is in between; a number, but no `50%|` of a progress bar;
`/10` after a number of steps."""
LIKELY = re.compile(r"[=:]\s*['\"]?[-+.\dnNiI]|[A-Za-z][ \[(#]+[-+.]?\d")
"""What every line with a pair has; much faster."""
ROUND = re.compile(r"\[(\d+)\]\s")
"""How XGBoost and LightGBM begin a line."""
SURELY = re.compile(
    r"(?i:loss|acc|accuracy|perplexity|ppl|mfu|lr|error|auc|f1|rmse|mae|mse|score|reward|precision|recall)$"
)
"""How names end that are metrics without `=` or `:`, too."""
OTHERWISE = frozenset(
    (
        "v_num",
        "version",
        "port",
        "time",
        "timestamp",
        "ts",
        "asctime",
        "created",
        "elapsed",
        "eta",
        "rank",
        "pid",
        "line",
        "lineno",
        "level",
        "levelno",
    )
)
"""Names of numbers that measure nothing, in lower case."""
COLUMNS = re.compile(r"\s{2,}|\s*[\t|]\s*")
DEEPEST = 4
"""Maps in maps in a line of JSON."""


class Automatic:
    """Reads line after line. `step` and `columns` are remembered from lines before, see `ReaderState`."""

    def __init__(self, step: float | None = None, columns: tuple[str, ...] = ()) -> None:
        self.step = step
        self.columns = columns
        self.refused: dict[str, str] = {}

    def read(self, line: str) -> tuple[float | None, Found]:
        """Return the step and the metrics of a line; no step if none is known."""
        if line[0] == "{" and line.rstrip()[-1] == "}" and (known := decoded(line)) is not None:
            return self._settled(list(flat(known)), None)
        if not LIKELY.search(line):
            return self._tabular(line)
        first = ROUND.match(line)
        pairs = [(name, float(value)) for name, value in map(pair, PAIR.findall(line)) if name]
        if not pairs and self.columns:
            return self._tabular(line)
        return self._settled(pairs, float(first[1]) if first else None)

    def _settled(self, pairs: Found, step: float | None) -> tuple[float | None, Found]:
        """Tell steps from metrics. A line with only a step is a heading of those that follow."""
        found, rank = [], len(STEPS)
        for name, value in pairs:
            low = name.lower()
            if low in STEPS:
                if STEPS.index(low) < rank and value - value == 0:
                    step, rank = value, STEPS.index(low)
            elif low not in OTHERWISE:
                found.append((name, value))
        if step is None:
            return self.step, found
        if not found:
            self.step = step
        return step, found

    def _tabular(self, line: str) -> tuple[float | None, Found]:
        """Read a row of a table, or a header whose first column counts steps."""
        if self.columns and line.lstrip("| \t")[:1].isdigit():
            cells = line.replace("|", " ").split()
            if len(cells) == len(self.columns) and (step := number(cells[0])) is not None:
                values = [(name, number(cell)) for name, cell in zip(self.columns[1:], cells[1:], strict=True)]
                return step, [(name, value) for name, value in values if value is not None and name not in OTHERWISE]
        elif line.lstrip("| \t")[:1].lower() in "eisrg" and (columns := header(line)):
            self.columns = columns
        return None, []


def pair(found: tuple[str, str, str, str]) -> tuple[str, str]:
    """Return the name and number of what PAIR found; an empty name if it is no pair."""
    name, between, value, out_of = found
    if (last := name.rpartition(" ")[2]).lower() in STEPS:
        return last, value
    if out_of or (between == ":" and value.isdigit()):  # 3/10; host:8080
        return "", value
    if between.isspace() or between[-1] in "[(#":
        return (name_of(name) if between == " " and SURELY.search(name) else ""), value
    return (name_of(name) if " " in name or name[-1] in "./-@_" else name[:100]), value


def header(line: str) -> tuple[str, ...]:
    """Return the columns of a table's header, empty for any other line."""
    cells = [cell for cell in COLUMNS.split(line.strip().strip("|").strip()) if cell]
    if len(cells) < 2 or cells[0].lower() not in STEPS or any(cell[0].isdigit() for cell in cells):
        return ()
    return tuple(name_of(cell) for cell in cells)


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
        name = name_of(f"{prefix}{key}") if prefix or not key.isidentifier() or len(key) > 100 else key
        if type(value) in (int, float):
            if name and abs(value) < 1e308:
                yield name, float(value)
        elif isinstance(value, str) and value.lower().lstrip("+-") in ("nan", "inf", "infinity"):
            yield name, float(value)
        elif isinstance(value, dict) and depth < DEEPEST:
            yield from flat(value, f"{name}.", depth + 1)
