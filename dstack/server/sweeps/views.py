"""Sweeps and trials as users see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from dstack.engine.context import Context
from dstack.engine.sweeps.sweeps import task_of
from dstack.engine.sweeps.trials import named_job
from dstack.model.api.sweeps import SweepSummary, SweepView, TrialView
from dstack.model.job.job import Job
from dstack.model.job.reasons import reason_code
from dstack.model.job.status import Status, summary
from dstack.model.sweep.sweep import Sweep, Trial, best_of, value_of
from dstack.model.text.units import rfc3339
from dstack.server.views import shown


class SweepViews:
    """Shows sweeps as they are now."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.store = context.store

    def sweep(self, sweep: Sweep) -> SweepView:
        """Return a sweep with all its trials."""
        trials = self.store.sweeps.trials(sweep.name)
        best = best_of(sweep.plan.metric, trials)
        return shown(
            sweep.plan,
            SweepView,
            name=sweep.name,
            workflow=sweep.workflow,
            user=sweep.user,
            status=sweep.status,
            stopping=sweep.stopping,
            submitted_at=sweep.submitted_at,
            finished_at=sweep.finished_at,
            exit_code=exit_code(trials) if sweep.finished else None,
            reason=self.why(sweep)[0],
            reason_code=self.why(sweep)[1],
            best=best and self.trial(sweep, best),
            trials=[self.trial(sweep, trial) for trial in trials],
        )

    def why(self, sweep: Sweep) -> tuple[str | None, str | None]:
        """Return the reason of a sweep as text and code; if its task fails, that."""
        trouble = None if sweep.finished else self.context.tasks.resting(task_of(sweep.name))
        if trouble:
            return f"since {rfc3339(trouble.since)}: {trouble.words}", None
        reason = sweep.reason or sweep.closing
        return (reason.text, reason.code) if reason else (None, None)

    def summary(self, sweep: Sweep) -> SweepSummary:
        """Return a sweep for the list."""
        trials = self.store.sweeps.trials(sweep.name)
        best = best_of(sweep.plan.metric, trials)
        counted = Counter(trial.status.value if trial.finished else "unfinished" for trial in trials)
        return shown(
            sweep,
            SweepSummary,
            method=sweep.plan.method,
            metric=sweep.plan.metric,
            max_runs=sweep.plan.max_runs,
            best=best and self.trial(sweep, best),
            trials=dict(counted),
        )

    def trial(self, sweep: Sweep, trial: Trial) -> TrialView:
        """Return a trial; of one that has not ended, what its run says now."""
        if not trial.finished:
            jobs = [self.context.told(job) for job in self.store.jobs.of(trial.run)]
            return self.unfinished(sweep, trial, jobs)
        reason = trial.reason and trial.reason.text
        return shown(trial, TrialView, reason=reason, reason_code=reason_code(trial.status, trial.reason))

    def unfinished(self, sweep: Sweep, trial: Trial, jobs: Sequence[Job]) -> TrialView:
        status = summary([job.status for job in jobs]) if jobs else Status.QUEUED
        waiting = next((job for job in jobs if not job.finished and job.reason), None)
        reason = trial.beaten or (waiting.reason if waiting else None)
        return shown(
            trial,
            TrialView,
            status=status,
            value=self.value(sweep, list(jobs)),
            exit_code=None,
            reason=reason and reason.text,
            reason_code=reason and reason.code,
        )

    def value(self, sweep: Sweep, jobs: list[Job]) -> float | None:
        """The value of the sweep's metric so far."""
        metric, job = sweep.plan.metric, named_job(sweep.workflow, jobs)
        if metric is None or job is None:
            return None
        return value_of(metric, self.store.metrics.summaries(job.source).get(metric.name))


def exit_code(trials: Sequence[Trial]) -> int:
    """Return the exit code of the command that follows a sweep: 0 if a trial is done, or that of the first which failed
    or was lost, or else was stopped."""
    if any(trial.status is Status.DONE for trial in trials):
        return 0
    for ends, code in (((Status.FAILED, Status.LOST), 125), ((Status.STOPPED,), 143)):
        found = next((trial for trial in trials if trial.status in ends), None)
        if found:
            return found.exit_code or code
    return 143
