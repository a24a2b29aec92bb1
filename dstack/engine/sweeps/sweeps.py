"""The sweeps of a server: submits them, stops them, and goes on with them."""

from __future__ import annotations

import random
import time
from pathlib import Path

from msgspec.structs import replace

from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.submission.submit import Submitter, require_code
from dstack.engine.sweeps import tpe
from dstack.engine.sweeps.drive import SweepDrive, failure
from dstack.engine.sweeps.trials import submission_of
from dstack.errors import ConflictError, UsageError
from dstack.model.api.runs import Submission
from dstack.model.job import names
from dstack.model.job.reasons import ReasonCode
from dstack.model.project.workflow import SweepSettings, Workflow
from dstack.model.sweep.plan import SweepPlan, plan
from dstack.model.sweep.points import next_point
from dstack.model.sweep.status import SweepMethod, SweepStatus
from dstack.model.sweep.sweep import Sweep, Trial
from dstack.model.text.units import rfc3339
from dstack.store.tables.events import acting

LONGEST = 50
"""Characters of a sweep's name: the names of its runs are longer."""


class SweepDrives:
    """All sweeps of a server. Each that has not ended is driven by a task of its own."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self.context = context
        self.engine = engine
        self.store = context.store
        self.driven: set[str] = set()

    def start(self) -> None:
        """Go on with the sweeps that have not ended."""
        for name in self.store.sweeps.running():
            self.begin(name)

    def begin(self, name: str) -> None:
        """Drive a sweep, unless a task does."""
        if name not in self.driven:
            self.driven.add(name)
            self.context.tasks.start(task_of(name), lambda: self.drive(name))

    async def drive(self, name: str) -> None:
        await SweepDrive(self.context, self.engine, name).run()
        self.driven.discard(name)

    async def submit(self, settings: SweepSettings, submission: Submission, pack: Path | None) -> Sweep:
        """Record a sweep and begin it. Raises UsageError if it makes no sense, or its first trial could not run."""
        workflow = next(each for each in submission.workflows if each.name == submission.workflow)
        known = list(submission.variables[submission.workflow].all)
        made = plan(settings, workflow, known, random.SystemRandom().randrange(2**31))
        if made.method is SweepMethod.TPE:
            tpe.require_optuna()
        name = self.name_for(submission.name)
        submitter = Submitter(self.context, self.engine)
        ready = await submitter.with_code(submission, pack)
        template = replace(ready, workflows=tuple(measured(each, made, name=workflow.name) for each in ready.workflows))
        first = Trial(sweep=name, number=1, values=next_point(made, []) or {})
        await submitter.draft(submission_of(template, first))
        template = replace(template, wait_for_runner=True)  # a runner that is gone for a while fails no later trial
        now = rfc3339(time.time())
        sweep = Sweep(name=name, workflow=submission.workflow, user=submission.user, plan=made, submitted_at=now)
        with acting(sweep.user):
            self.store.sweeps.add(sweep, template)
        self.begin(name)
        return sweep

    def name_for(self, wanted: str | None) -> str:
        """Return the user's name for a sweep, or a new one. Raises UsageError if it can't be used."""
        if wanted is None:
            return names.run_name(lambda name: self.taken(name) is not None, random.SystemRandom())
        names.check_run_name(wanted)
        if len(wanted) > LONGEST:
            raise UsageError(f"'{wanted}' is too long for a sweep, whose runs have longer names; use up to {LONGEST}")
        if why := self.taken(wanted):
            raise ConflictError(f"{why} already exists", hint="choose another --name")
        return wanted

    def taken(self, name: str) -> str | None:
        """Return what has a name, or would be a trial's."""
        if self.store.sweeps.get(name):
            return f"a sweep named '{name}'"
        trial = next((run for run in self.store.runs.beginning(f"{name}-") if run[len(name) + 1 :][:1].isdigit()), None)
        run = name if self.store.runs.get(name) else trial
        return f"a run named '{run}'" if run else None

    def stop(self, sweep: Sweep) -> Sweep:
        """Ask a sweep to stop: its trials, and no new ones. Raises ConflictError if it has ended."""
        if sweep.finished:
            raise ConflictError(f"{sweep.name} has ended: it is {sweep.status.value}")
        return self.store.sweeps.change(sweep.name, "sweep.stop-requested", stopping=True)

    async def resume(self, sweep: Sweep, max_runs: int | None) -> Sweep:
        """Go on with a sweep that has ended: with the trials that its stop stopped, and with new ones up to `max_runs`.
        Raises ConflictError if there is nothing to go on with."""
        self.refuse_running(sweep, "dstack sweep stop")
        trials = self.store.sweeps.trials(sweep.name)
        cut = [trial for trial in trials if trial.reason and trial.reason.code is ReasonCode.SWEEP_STOPPED]
        most = max_runs or sweep.plan.max_runs
        if not cut and most <= len(trials):
            hint = f"to try more: dstack sweep resume {sweep.name} --max-runs {len(trials) + 10}"
            raise ConflictError(f"{sweep.name} has had all of its {len(trials)} trials", hint=hint)
        more = replace(sweep.plan, max_runs=most)
        return await self.go_on(sweep, cut, plan=more, forgiven=sum(map(failure, trials)))

    async def retry_failed(self, sweep: Sweep) -> Sweep:
        """Run the failed trials of a sweep again, with the same values. Raises ConflictError if there are none."""
        if sweep.stopping or sweep.status is SweepStatus.STOPPED:
            raise ConflictError(f"{sweep.name} is stopped", hint=f"first: dstack sweep resume {sweep.name}")
        failed = [trial for trial in self.store.sweeps.trials(sweep.name) if failure(trial)]
        if not failed:
            raise ConflictError(f"{sweep.name} has no failed trials", hint=f"dstack sweep show {sweep.name}")
        return await self.go_on(sweep, failed)

    def refuse_running(self, sweep: Sweep, command: str) -> None:
        """Raise ConflictError for a sweep that has not ended."""
        if sweep.stopping:
            raise ConflictError(f"{sweep.name} is still stopping", hint=f"dstack sweep show {sweep.name}")
        if not sweep.finished:
            raise ConflictError(f"{sweep.name} is running", hint=f"to stop it: {command} {sweep.name}")

    async def go_on(self, sweep: Sweep, again: list[Trial], **changes: object) -> Sweep:
        """Queue trials of a sweep again and drive it."""
        await require_code(self.context, sweep.name, sweep.workflow, self.store.sweeps.template(sweep.name).snapshot)
        with self.store.database.transaction():
            for trial in again:
                self.queue_again(trial)
            fresh = {"status": SweepStatus.RUNNING, "closing": None, "reason": None, "finished_at": None}
            after = self.store.sweeps.change(sweep.name, "sweep.resumed", **fresh, **changes)
        self.begin(sweep.name)
        return after

    def queue_again(self, trial: Trial) -> None:
        """Queue a trial with the same values; its run gets a new name if it has had one."""
        blank = Trial(sweep=trial.sweep, number=trial.number, values=trial.values)
        attempt = trial.attempt + 1 if trial.submitted else trial.attempt
        fields = {name: getattr(blank, name) for name in blank.__struct_fields__}
        self.store.sweeps.change_trial(trial, "sweep.trial-queued-again", **{**fields, "attempt": attempt})


def measured(workflow: Workflow, made: SweepPlan, *, name: str) -> Workflow:
    """Return a workflow as trials run it. If it names no metrics, those of the sweep's own workflow are read anyway."""
    reads = workflow.metrics or ("auto" if made.metric and workflow.name == name else None)
    return replace(workflow, sweep=None, metrics=reads)


def task_of(name: str) -> str:
    """The name of the task that drives a sweep."""
    return f"sweep {name}"
