"""A sweep and its trials, as recorded. What users see is in `model/api/`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct

from dstack.model.job.reasons import Reason
from dstack.model.job.status import Status
from dstack.model.metrics.series import MetricSummary
from dstack.model.project.workflow import MetricGoal
from dstack.model.sweep.plan import SweepPlan
from dstack.model.sweep.space import Point
from dstack.model.sweep.status import SweepStatus

BEST = ":best"
"""After a sweep's name: its best trial."""


class Sweep(Struct, frozen=True, kw_only=True):
    """Many runs of one workflow, all with the code of one snapshot. `stopping`: a person wants it to end. `closing`
    says why it has no new trials; while it is None, there may be more. `forgiven` failures don't count for
    `max-failures`: they were before somebody resumed it. Times are RFC 3339, UTC."""

    name: str
    workflow: str
    user: str
    plan: SweepPlan
    submitted_at: str
    status: SweepStatus = SweepStatus.RUNNING
    stopping: bool = False
    closing: Reason | None = None
    forgiven: int = 0
    reason: Reason | None = None
    finished_at: str | None = None

    @property
    def finished(self) -> bool:
        return self.status is not SweepStatus.RUNNING


class Trial(Struct, frozen=True, kw_only=True):
    """One run of a sweep, recorded with its values before the run is submitted. `status`, `value` (of the metric),
    `step` (its last), `exit_code` and `reason` are those of its end. `submitted`: the run was recorded. `beaten` says
    against what it lost. `attempt` counts the runs that it has had."""

    sweep: str
    number: int
    values: Point
    attempt: int = 1
    submitted: bool = False
    status: Status = Status.QUEUED
    value: float | None = None
    step: float | None = None
    exit_code: int | None = None
    reason: Reason | None = None
    beaten: Reason | None = None
    finished_at: str | None = None

    @property
    def finished(self) -> bool:
        return self.status.finished

    @property
    def run(self) -> str:
        """The name of its run: that of the sweep with its number, and with the attempt after the first."""
        again = f".{self.attempt}" if self.attempt > 1 else ""
        return f"{self.sweep}-{self.number}{again}"

    @property
    def once(self) -> str:
        """The idempotency key of its run."""
        return f"sweep {self.run}"


def value_of(metric: MetricGoal, found: MetricSummary | None) -> float | None:
    """Return the value of a trial by its series; None without one, or if it is not a finite number."""
    if found is None:
        return None
    best = "max" if metric.goal == "maximize" else "min"
    value = {"last": found.last, "min": found.min, "max": found.max}[best if metric.of == "best" else metric.of].value
    return value if math.isfinite(value) else None


def best_of(metric: MetricGoal | None, trials: Sequence[Trial]) -> Trial | None:
    """Return the best trial that is done, the earliest of equal ones; None if there is none with a value."""
    done = [trial for trial in trials if trial.status is Status.DONE and trial.value is not None]
    if not done or metric is None:
        return None
    sign = -1.0 if metric.goal == "maximize" else 1.0
    return min(done, key=lambda trial: sign * (trial.value or 0.0))
