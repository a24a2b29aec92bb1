"""The life of one sweep, from its submission to its end."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from anyio import move_on_after

from dstack.engine.context import ANYTHING, Context
from dstack.engine.engine import Engine
from dstack.engine.submission.submit import Submitter
from dstack.engine.sweeps import tpe
from dstack.engine.sweeps.judge import Judge
from dstack.engine.sweeps.trials import ended, refused, submission_of
from dstack.errors import ServerTroubleError, UsageError
from dstack.model.job.job import ExitCode
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import UNSUCCESSFUL, Status
from dstack.model.sweep import points
from dstack.model.sweep.space import Point
from dstack.model.sweep.status import SweepStatus
from dstack.model.sweep.sweep import Sweep, Trial
from dstack.model.text.units import rfc3339

AGAIN = 2.0
"""Seconds after which a sweep is looked at even if nothing has happened: logs grow without an event."""
REST = 0.1
"""Seconds between two looks: many events are one."""
STOPPED = Reason(ReasonCode.SWEEP_STOPPED, "stopped by dstack sweep stop")


class SweepDrive:
    """Takes a sweep to its end. All that it knows is in the store, so it may be killed at any point: a trial is
    recorded with its values before its run is submitted, and the run's idempotency key makes a second submission the
    first."""

    def __init__(self, context: Context, engine: Engine, name: str) -> None:
        self.context = context
        self.engine = engine
        self.store = context.store
        self.name = name
        self.submitter = Submitter(context, engine)
        self.judge = Judge(self.store)

    @property
    def sweep(self) -> Sweep:
        return self.store.sweeps.require(self.name)

    async def run(self) -> None:
        """Take one step after the other until the sweep has ended."""
        while not self.sweep.finished:
            bell = self.context.events.subscribe(ANYTHING)
            await self.step()
            await asyncio.sleep(REST)
            with move_on_after(AGAIN):
                await bell.wait()

    async def step(self) -> None:
        """Record what has ended, stop what has to be, and submit what is due."""
        for trial in self.store.sweeps.unfinished_trials(self.name):
            self.settle(trial)
        if self.sweep.stopping:
            for trial in self.store.sweeps.unfinished_trials(self.name):
                self.stop(trial)
        else:
            self.stop_losers()
            await self.refill()
        self.conclude()

    def settle(self, trial: Trial) -> None:
        """Record the end of a trial whose run has ended."""
        jobs = self.store.jobs.of(trial.run)
        if not jobs and trial.submitted:
            reason = Reason(ReasonCode.RUN_DELETED, "its run was deleted")
            self.end(trial, status=Status.LOST, exit_code=ExitCode.DSTACK, reason=reason)
        elif jobs and all(job.finished for job in jobs):
            sweep = self.sweep
            self.end(trial, submitted=True, **ended(self.store, trial, sweep.workflow, sweep.plan.metric, jobs))

    def end(self, trial: Trial, **how: Any) -> None:
        given = {"finished_at": rfc3339(time.time()), **how}
        self.store.sweeps.change_trial(trial, "sweep.trial-ended", **given)

    def stop(self, trial: Trial) -> None:
        """Stop a trial because its sweep is stopped."""
        jobs = self.store.jobs.of(trial.run)
        if jobs:
            self.engine.stop(jobs, abort=False, why=STOPPED)
        else:
            self.end(trial, status=Status.STOPPED, exit_code=ExitCode.STOPPED, reason=STOPPED)

    def stop_losers(self) -> None:
        """Stop the trials that have lost. The verdict is recorded before they are."""
        sweep = self.sweep
        if sweep.plan.stop_early is None:
            return
        for trial, why in self.judge.losers(sweep, self.store.sweeps.trials(self.name)):
            with self.store.database.transaction():
                self.store.sweeps.change_trial(trial, "sweep.trial-beaten", beaten=why)
                self.engine.stop(self.store.jobs.of(trial.run), abort=False, why=why)

    async def refill(self) -> None:
        """Submit trials until as many as the plan says are on their way: those recorded already first."""
        while not self.sweep.stopping:
            unfinished = self.store.sweeps.unfinished_trials(self.name)
            waiting = [trial for trial in unfinished if not trial.submitted]
            if len(unfinished) - len(waiting) >= self.sweep.plan.parallel:
                return
            trial = waiting[0] if waiting else await self.another()
            if trial is None:
                return
            await self.submit(trial)

    async def another(self) -> Trial | None:
        """Record the next trial, or why there is none."""
        sweep, tried = self.sweep, self.store.sweeps.points(self.name)
        if sweep.closing or len(tried) >= sweep.plan.max_runs:
            return None
        if why := self.too_many_failures(sweep):
            self.close(why)
            return None
        point = await self.choose(sweep, tried)
        if point is None:
            text = f"the space is used up: all {len(tried)} combinations were tried"
            self.close(Reason(ReasonCode.SPACE_USED_UP, text))
            return None
        if self.sweep.stopping:
            return None
        trial = Trial(sweep=self.name, number=self.store.sweeps.last_number(self.name) + 1, values=point)
        self.store.sweeps.add_trial(trial)
        return trial

    def close(self, why: Reason) -> None:
        """Record why there are no more trials."""
        self.store.sweeps.change(self.name, "sweep.closing", closing=why)

    def too_many_failures(self, sweep: Sweep) -> Reason | None:
        most = sweep.plan.max_failures
        if most is None:
            return None
        failed = sum(failure(trial) for trial in self.store.sweeps.trials(self.name)) - sweep.forgiven
        if failed < most:
            return None
        text = f"{failed} trials failed, and max-failures is {most}; to go on: dstack sweep resume {self.name}"
        return Reason(ReasonCode.MAX_FAILURES, text)

    async def choose(self, sweep: Sweep, tried: list[Point]) -> Point | None:
        """Return the values of the next trial, None if the space is used up."""
        trials = self.store.sweeps.trials(self.name) if points.learns(sweep.plan, len(tried)) else []
        if any(trial.value is not None for trial in trials):
            found = await asyncio.to_thread(tpe.ask, sweep.plan, trials)
            if found is not None:
                return found
        return points.next_point(sweep.plan, tried)

    async def submit(self, trial: Trial) -> None:
        """Submit a trial's run. One that can't be submitted has failed."""
        try:
            await self.submitter.submit(submission_of(self.store.sweeps.template(self.name), trial))
        except ServerTroubleError:
            raise
        except UsageError as error:
            self.end(trial, **refused(error))
        else:
            self.store.sweeps.change_trial(trial, "sweep.trial-submitted", submitted=True)

    def conclude(self) -> None:
        """End the sweep if all trials have, and there are no more."""
        sweep = self.sweep
        if self.store.sweeps.unfinished_trials(self.name):
            return
        trials = self.store.sweeps.trials(self.name)
        if not (sweep.stopping or sweep.closing or len(trials) >= sweep.plan.max_runs):
            return
        status, reason = verdict(sweep, trials)
        now = rfc3339(time.time())
        self.store.sweeps.change(
            self.name, f"sweep.{status.value}", status=status, reason=reason, stopping=False, finished_at=now
        )


def failure(trial: Trial) -> bool:
    """Whether a trial failed by itself."""
    return trial.status in (Status.FAILED, Status.LOST)


def verdict(sweep: Sweep, trials: list[Trial]) -> tuple[SweepStatus, Reason | None]:
    """Return how a sweep ends, and why that is not obvious."""
    done = [trial for trial in trials if trial.status is Status.DONE]
    if sweep.stopping:
        return SweepStatus.STOPPED, STOPPED
    if sweep.closing and sweep.closing.code is ReasonCode.MAX_FAILURES:
        return SweepStatus.FAILED, sweep.closing
    if not done:
        return no_trial_done(trials)
    if sweep.plan.metric and all(trial.value is None for trial in done):
        return SweepStatus.DONE, done[0].reason
    return SweepStatus.DONE, sweep.closing


def no_trial_done(trials: list[Trial]) -> tuple[SweepStatus, Reason]:
    failed = next((trial for trial in trials if trial.status in UNSUCCESSFUL and not trial.beaten), trials[0])
    status = SweepStatus.FAILED if any(map(failure, trials)) else SweepStatus.STOPPED
    why = f": {failed.reason.text}" if failed.reason else f" with exit code {failed.exit_code}"
    text = f"none of {len(trials)} trials is done; {failed.run} {failed.status.value}{why}"
    return status, Reason(ReasonCode.TRIALS_FAILED, text)
