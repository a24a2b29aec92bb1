"""Looks at the curves of running trials, and says which have lost."""

from __future__ import annotations

from collections.abc import Sequence

from dstack.engine.sweeps.trials import beaten, named_job
from dstack.model.job.reasons import Reason
from dstack.model.job.status import Status
from dstack.model.sweep.stopping import Curve, curve, lost
from dstack.model.sweep.sweep import Sweep, Trial
from dstack.store.store import Store

POINTS = 400
"""Points of a curve that are compared."""
RIVALS = 300
"""Trials that one is compared with: the newest."""


NOTHING = Curve((), ())


class Judge:
    """Keeps the curves of one sweep, each with the length of its series when it was read. Those in `final` don't grow
    any more."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.curves: dict[str, tuple[int, Curve]] = {}
        self.final: set[str] = set()

    def losers(self, sweep: Sweep, trials: Sequence[Trial]) -> list[tuple[Trial, Reason]]:
        """Return the running trials that have lost, and against what."""
        rule, metric = sweep.plan.stop_early, sweep.plan.metric
        if rule is None or metric is None:
            return []
        compared = [trial for trial in trials if trial.submitted][-RIVALS:]
        curves = {trial.run: self.curve(sweep, metric.name, trial) for trial in compared}
        self.curves = {run: self.curves[run] for run in curves}
        found = []
        for trial in compared:
            if trial.finished or trial.beaten or not self.running(sweep, trial):
                continue
            others = [each for run, each in curves.items() if run != trial.run]
            loss = lost(rule, metric, curves[trial.run], others)
            if loss:
                found.append((trial, beaten(metric, rule.rule, loss)))
        return found

    def running(self, sweep: Sweep, trial: Trial) -> bool:
        job = named_job(sweep.workflow, self.store.jobs.of(trial.run))
        return job is not None and job.status is Status.RUNNING

    def curve(self, sweep: Sweep, name: str, trial: Trial) -> Curve:
        """Return a trial's curve, read again only if it has grown."""
        length, known = self.curves.get(trial.run, (0, NOTHING))
        if trial.run not in self.final:
            job = named_job(sweep.workflow, self.store.jobs.of(trial.run))
            series = self.store.metrics.summaries(job.source).get(name) if job else None
            if job and series and series.count != length and sweep.plan.metric:
                points = self.store.metrics.series(job.source, name, POINTS)
                known = curve(sweep.plan.metric, ((point.step, point.value) for point in points))
                length = series.count
        self.curves[trial.run] = length, known
        if trial.finished:
            self.final.add(trial.run)
        return known
