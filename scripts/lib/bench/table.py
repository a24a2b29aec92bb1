"""What is measured, in one table: a row for each thing, with what it is compared with and the target for the ratio."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from measure import Cost, NotMeasuredError, Way, in_turns
from world import World


@dataclass(frozen=True)
class Row:
    """`prepare` returns the ways to do it, dstack's own first, and second what it is compared with."""

    name: str
    what: str
    against: str
    target: str
    prepare: Callable[[World], Mapping[str, Way]]
    unit: str = "s"


@dataclass(frozen=True)
class Result:
    """A measured row, or why there is none."""

    row: Row
    costs: dict[str, Cost]
    missing: str | None = None

    @property
    def ratio(self) -> float | None:
        """The median of dstack's way to that of the second, if there are two."""
        medians = [cost.median for cost in self.costs.values()]
        return medians[0] / medians[1] if len(medians) > 1 and medians[1] else None

    def record(self) -> dict[str, Any]:
        """What `--json` has of it."""
        row = {name: value for name, value in vars(self.row).items() if name != "prepare"}
        costs = {name: asdict(cost) for name, cost in self.costs.items()}
        return {**row, "ratio": self.ratio, "costs": costs, "not_measured": self.missing}


def measured(row: Row, world: World, rounds: int) -> Result:
    """Measure a row; one that can't be measured here says why."""
    try:
        return Result(row, in_turns(row.prepare(world), rounds))
    except (NotMeasuredError, subprocess.CalledProcessError) as problem:
        return Result(row, {}, str(problem))


def lines(result: Result) -> list[str]:
    """The row as text: a line for each way, or one that says why there is none."""
    row, title = result.row, f"{result.row.name:<14} {result.row.what}"
    if result.missing:
        return [f"{title}: not measured: {result.missing}"]
    told = [title]
    for name, cost in result.costs.items():
        spread = f"{cost.median:10.3f} {row.unit:<4} {cost.least:10.3f} to {cost.most:.3f}"
        told.append(f"    {name:<52}{spread}")
    ratio = f"x{result.ratio:.2f} of {row.against}" if result.ratio is not None else "no rival"
    return [*told, f"    {ratio}; target {row.target}"]


def as_json(results: list[Result]) -> str:
    return json.dumps([result.record() for result in results], indent=2)
