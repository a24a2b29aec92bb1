"""What a trial submits, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from dstack.errors import DstackError
from dstack.model.api.runs import Submission
from dstack.model.job.job import ExitCode, Job, decisive
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status, summary
from dstack.model.project.workflow import MetricGoal, Variables
from dstack.model.sweep.space import Point
from dstack.model.sweep.stopping import Loss
from dstack.model.sweep.sweep import Trial, value_of
from dstack.model.text.suggest import did_you_mean
from dstack.store.store import Store

SHOWN = 5
"""How many metrics are named that a trial has instead of the one that is missing."""


def submission_of(template: Submission, trial: Trial) -> Submission:
    """Return what a trial submits."""
    variables = with_values(template.variables, template.workflow, trial.values)
    return replace(template, name=trial.run, once=trial.once, variables=variables)


def with_values(before: Mapping[str, Variables], workflow: str, values: Point) -> dict[str, Variables]:
    """Return the variables of a run with a trial's values. One of the workflow's own variables changes there alone, a
    global one for every job."""
    own = before[workflow].own
    mine = {name: value for name, value in values.items() if name in own}
    shared = {name: value for name, value in values.items() if name not in own}
    changed = {name: Variables({**each.shared, **shared}, each.own) for name, each in before.items()}
    return changed | {workflow: Variables(changed[workflow].shared, {**own, **mine})}


def named_job(workflow: str, jobs: list[Job]) -> Job | None:
    """Return the job whose log has the metric."""
    return next((job for job in jobs if job.workflow == workflow), None)


def ended(store: Store, trial: Trial, workflow: str, metric: MetricGoal | None, jobs: list[Job]) -> dict[str, Any]:
    """Return how a trial ended whose jobs all have."""
    status, deciding, job = summary([job.status for job in jobs]), decisive(jobs), named_job(workflow, jobs)
    found = store.metrics.summaries(job.source) if job and metric else {}
    series = found.get(metric.name) if metric else None
    value = value_of(metric, series) if metric else None
    reason = deciding.reason if deciding else None
    if metric and status is Status.DONE and value is None:
        reason = missing(metric.name, list(found), workflow)
    return {
        "status": status,
        "value": value,
        "step": series.last.step if series and math.isfinite(series.last.step) else None,
        "exit_code": deciding.exit_code if deciding else 0,
        "reason": reason,
        "finished_at": max(job.finished_at or "" for job in jobs),
    }


def missing(name: str, found: list[str], workflow: str) -> Reason:
    """Return the reason of a trial that is done without a finite value of the metric."""
    if name in found:
        return Reason(ReasonCode.METRIC_MISSING, f"its value of '{name}' is not a finite number")
    known = f"; it has {', '.join(found[:SHOWN])}{did_you_mean(name, found)}" if found else ""
    how = f"print '{name}=0.5' in {workflow}, or say how it is printed with `metrics: {{{name}: 'REGEX'}}`"
    return Reason(ReasonCode.METRIC_MISSING, f"no metric '{name}' was found in its log{known}; {how}")


def refused(error: DstackError) -> dict[str, Any]:
    """Return how a trial ended whose run could not be submitted."""
    code = error.code if isinstance(error.code, ReasonCode) else ReasonCode.TRIAL_REFUSED
    return {"status": Status.FAILED, "exit_code": ExitCode.DSTACK, "reason": Reason(code, error.message)}


def beaten(metric: MetricGoal, rule: str, loss: Loss) -> Reason:
    """Return why a trial is stopped: against what it lost."""
    which = "the median" if rule == "median" else "the best third"
    own, limit = f"{metric.name} {loss.value:.6g} at step {loss.step:g}", f"{which} of {loss.others} other trials"
    text = f"stopped early: {own} is worse than {limit}, {loss.limit:.6g}"
    return Reason(ReasonCode.BEATEN, text)
