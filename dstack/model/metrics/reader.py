"""Reads a log's metrics into series, from where another reader stopped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dstack.model.metrics.automatic import Automatic, Found
from dstack.model.metrics.lines import lines
from dstack.model.metrics.series import Series
from dstack.model.metrics.state import ReaderState

MOST_SERIES = 200
"""A job's further metrics are not read: a log may print ever new names."""
TOO_MANY = f"there are more than {MOST_SERIES} metrics; name those that you need under 'metrics'"

Wanted = str | Mapping[str, str]
"""What a workflow has under `metrics`: `auto`, or regular expressions by name."""


class LineReader(Protocol):
    """Finds metrics in lines, and remembers the step of a heading."""

    step: float | None
    refused: dict[str, str]

    def read(self, line: str) -> tuple[float | None, Found]: ...


class Reader:
    """Adds what it reads to `series`. `refused` says by name what is not read, and why."""

    def __init__(self, wanted: Wanted, state: ReaderState, series: dict[str, Series]) -> None:
        self.series = series
        self.counts = {name: each.count for name, each in series.items()}
        self.refused = dict(state.refused)
        self.automatic = Automatic(state.step, state.columns)
        self.lines: LineReader = self.automatic if isinstance(wanted, str) else named(wanted, state)

    def read(self, data: bytes, time: float) -> None:
        """Read whole lines that arrived at a time, in seconds since the epoch."""
        for line in lines(data):
            step, found = self.lines.read(line)
            for name, value in found:
                series = self.series.get(name) or self._begin(name)
                if series is not None:
                    series.add(step, time, value)
        self.refused.update(self.lines.refused)

    def state(self, position: int, attempt: int) -> ReaderState:
        """Return where it stands, for the next reader."""
        return ReaderState(
            position=position,
            attempt=attempt,
            step=self.lines.step,
            columns=self.automatic.columns,
            refused=dict(self.refused),
        )

    def news(self) -> dict[str, Series]:
        """Return the series with values that are new since the last call."""
        before, self.counts = self.counts, {name: each.count for name, each in self.series.items()}
        return {name: each for name, each in self.series.items() if each.count != before.get(name)}

    def _begin(self, name: str) -> Series | None:
        if len(self.series) >= MOST_SERIES:
            self.refused[""] = TOO_MANY
            return None
        return self.series.setdefault(name, Series())


def named(wanted: Mapping[str, str], state: ReaderState) -> LineReader:
    """Return a reader of these expressions, without those that were too slow."""
    from dstack.model.metrics.named import Named  # not every program has to load the library

    return Named({name: text for name, text in wanted.items() if name not in state.refused}, state.step)
