"""The runners: what they have, what is wrong with them, and what is kept there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from dstack.engine.engine import Engine
from dstack.model.runner.metrics import Use
from dstack.model.text.units import rfc3339
from dstack.server.web.views.now import RunnerBoard
from dstack.server.web.views.usage import UseSummary, series

KEPT = 100
"""Most kept artifacts that the page lists."""
JOBS = 20
"""How many of the newest events of a runner it shows."""


@dataclass
class RunnerPages:
    engine: Engine
    machines: RunnerBoard

    def runners(self) -> dict[str, Any]:
        rows = self.machines.rows()
        waiting = [each for each in self.engine.store.registrations.all() if not each.approved]
        return {"machines": rows, "waiting": waiting}

    def runner(self, name: str) -> dict[str, Any]:
        runner = self.engine.store.runners.require(name)
        self.machines.look()
        view = self.engine.context.fleet.view(runner)
        jobs = [job for job in self.engine.store.jobs.unfinished() if job.runner == name]
        kept = self.engine.store.retained_artifacts.of(name)
        after = self.engine.store.events.before_newest(JOBS, runner=name)
        samples = list(self.machines.service.metrics.history.get(name, ()))
        return {
            "row": self.machines.row(view, jobs),
            "runner": view,
            "facts": runner.facts,
            "kept": kept[::-1][:KEPT],
            "kept_more": max(0, len(kept) - KEPT),
            "images": self.engine.store.pulled_images.of(name),
            "events": self.engine.store.events.select(JOBS, after=after, runner=name)[::-1],
            "series": measured(samples),
            "measured_since": rfc3339(samples[0][0]) if samples else None,
        }


def measured(samples: Sequence[tuple[int, Use]]) -> list[UseSummary]:
    """Return what a machine did lately, in numbers and small pictures."""
    busy: dict[str, list[float | None]] = {
        "CPU": [use.cpu for _, use in samples],
        "Memory": [float(use.memory_used) for _, use in samples],
        "GPUs": [fmean(gpu.percent or 0 for gpu in use.gpus) if use.gpus else None for _, use in samples],
    }
    known = {name: [value for value in values if value is not None] for name, values in busy.items()}
    return [series(name, values) for name, values in known.items() if len(values) > 1]
