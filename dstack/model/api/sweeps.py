"""Sweeps as they travel over HTTP, and in `--json`."""

from __future__ import annotations

from msgspec import Struct

from dstack.model.api.runs import Submission
from dstack.model.job.status import Status
from dstack.model.project.workflow import MetricGoal, Runs, StopEarly, SweepSettings
from dstack.model.sweep.status import SweepMethod, SweepStatus


class SweepSubmission(Struct, kw_only=True):
    """The body of `POST /sweeps`: this as one line of JSON, then a git pack, as for a run. `submission` is what all
    trials have in common; its name is that of the sweep."""

    settings: SweepSettings
    submission: Submission


class TrialView(Struct, kw_only=True):
    """A trial as users see it. `value` is that of the sweep's metric so far, None without one; `exit_code` is None
    before the end."""

    number: int
    run: str
    status: Status
    values: dict[str, str]
    value: float | None
    exit_code: int | None
    reason: str | None
    reason_code: str | None


class SweepView(Struct, kw_only=True):
    """A sweep as users see it. `best` is the best trial that is done, None without one. `exit_code` is that of the
    command which follows it, None before its end. `stopping`: somebody asked it to stop."""

    name: str
    workflow: str
    user: str
    status: SweepStatus
    stopping: bool
    exit_code: int | None
    reason: str | None
    reason_code: str | None
    method: SweepMethod
    metric: MetricGoal | None
    seed: int
    max_runs: int
    parallel: int
    stop_early: StopEarly | None
    max_failures: int | None
    submitted_at: str
    finished_at: str | None
    best: TrialView | None
    trials: list[TrialView]


class SweepSummary(Struct, kw_only=True):
    """A sweep in the list. `trials` counts them by status."""

    name: str
    workflow: str
    user: str
    status: SweepStatus
    method: SweepMethod
    metric: MetricGoal | None
    max_runs: int
    submitted_at: str
    finished_at: str | None
    best: TrialView | None
    trials: dict[str, int]


class ResumeRequest(Struct, kw_only=True):
    """The body of `POST /sweeps/{ref}/resume`. `max_runs` replaces the sweep's own."""

    max_runs: Runs | None = None


class SweepEvent(Struct, kw_only=True, omit_defaults=True):
    """A frame of `GET /sweeps/{ref}/follow`: one line of JSON. `event` is `trial` (a trial is new or changed), `sweep`
    (the first and, when it has ended, the last) or `ping`."""

    event: str
    trial: TrialView | None = None
    sweep: SweepView | None = None
