"""Submits runs, whoever asks for them: the code goes into the mirror, the run and its jobs into the store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import structs

from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.retention.prune import start_tidying
from dstack.engine.submission.plan import Planner
from dstack.errors import ConflictError, NotFoundError, TryAgainError, UsageError
from dstack.model.api.runs import Submission
from dstack.model.code.snapshot import Snapshot
from dstack.model.code.tree import Change, SizedFile
from dstack.model.job import names
from dstack.model.job.job import Job, Run
from dstack.model.job.reasons import ReasonCode
from dstack.model.runner.runner import Address, Runner
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import moment
from dstack.plumbing.modes import Modes
from dstack.scheduling.schedule import eligible, impossible
from dstack.scheduling.types import Schedule, Waiting
from dstack.store.lookup import run_named
from dstack.store.tables.events import acting

LOCAL = "local"
"""The name of the runner that is the server's own machine."""
FRESH = 15.0
"""Seconds for which a probe is fresh enough to place jobs by."""
PATIENCE = 2.0
"""Seconds that a submission waits for machines that don't answer."""


@dataclass(frozen=True)
class Submitted:
    """A run and its jobs, planned or recorded. `components` are the parts of each cache key of a new run."""

    run: Run
    jobs: list[Job]
    components: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def unfinished(self) -> list[Job]:
        """The jobs without a cached result."""
        return [job for job in self.jobs if not job.finished]


@dataclass(frozen=True)
class Preview:
    """What would happen, where, and with what code."""

    draft: Submitted
    schedule: Schedule
    changes: Sequence[Change]
    files: list[SizedFile]
    modes: Modes


class Submitter:
    def __init__(self, context: Context, engine: Engine) -> None:
        self.context = context
        self.engine = engine
        self.store = context.store

    async def submit(self, submission: Submission, pack: Path | None = None) -> Submitted:
        """Record a run and wake the engine. Without a pack, the server must have the code. Raises UsageError if it
        can't run, and MissingBaseError if the pack builds on a commit that the server lacks."""
        submission = await self.with_code(submission, pack)
        if earlier := self.accepted(submission):
            return earlier
        draft = await self.draft(submission)
        # No await between the plan and its record, so that two submissions needing the same job share it.
        if earlier := self.accepted(submission):
            return earlier
        self.refuse_taken(draft.run.name, submission.once or "")
        with acting(draft.run.user), self.store.database.transaction():
            self.store.runs.add(draft.run)
            for job in draft.jobs:
                self.store.jobs.add(job)
                self.store.cache_keys.add(job.key, draft.components[job.key])
        self.engine.poke()
        start_tidying(self.context, draft.run.snapshot.repo)
        return draft

    async def preview(self, submission: Submission, pack: Path | None = None) -> Preview:
        """Plan a run without recording it. Raises the same errors as `submit`."""
        draft = await self.draft(await self.with_code(submission, pack))
        scheduler = self.engine.scheduler
        waiting = [scheduler.queue.item(job, draft.run) for job in draft.unfinished]
        planned = scheduler.plan(waiting, self.context.fleet.now(), self.store.jobs.unfinished())
        snapshot = draft.run.snapshot
        mirror = self.context.mirror(snapshot.repo)
        changes = await asyncio.to_thread(mirror.changes, snapshot.commit, snapshot.tree)
        sizes = await asyncio.to_thread(mirror.sizes, snapshot.tree)
        modes = await asyncio.to_thread(mirror.modes_of, snapshot)
        return Preview(draft, planned, changes, sizes, modes)

    async def with_code(self, submission: Submission, pack: Path | None) -> Submission:
        """Return the submission once its code is in the mirror: its own, or that of the run that it repeats. Raises
        NotFoundError if the server no longer has the code of that run."""
        if not submission.from_run:
            if pack is not None:
                mirror = self.context.mirror(submission.snapshot.repo)
                await asyncio.to_thread(mirror.receive, submission.snapshot, pack)
            return submission
        run = run_named(self.store, submission.from_run)
        await require_code(self.context, run.name, run.workflow, run.snapshot)
        return structs.replace(submission, snapshot=run.snapshot)

    def accepted(self, submission: Submission) -> Submitted | None:
        """Return the run of the same user with the same idempotency key, or None. Raises TryAgainError for a second
        singleton."""
        once, user = submission.once, submission.user
        earlier = self.store.runs.submitted_with(once, user) if once else None
        if earlier:
            return Submitted(earlier, self.store.jobs.of(earlier.name))
        if submission.singleton:
            self.refuse_second(submission)
        return None

    async def draft(self, submission: Submission) -> Submitted:
        """Plan the run. Raises UsageError if a job could never run, or needs a secret that is not set. With `--local`,
        the server's own machine becomes a hidden runner."""
        name = self.name_for(submission)
        pin = LOCAL if submission.local else submission.runner
        if submission.local and self.store.runners.get(LOCAL) is None:
            self.store.runners.add(Runner(name=LOCAL, address=Address(), hidden=True))
        await self.probe(pin)
        planner, jobs = await self.planned(submission, name)
        draft = Submitted(new_run(submission, planner, pin), jobs, planner.components, planner.warnings)
        self.refuse_unknown_secrets(jobs)
        self.refuse_impossible(submission, draft)
        return draft

    def name_for(self, submission: Submission) -> str:
        """Return the user's name for the run, or a new one. Raises ConflictError if the user's is taken."""
        if submission.name is None:
            return names.run_name(self.known, random.SystemRandom())
        names.check_run_name(submission.name)
        self.refuse_taken(submission.name, submission.once or "")
        return submission.name

    def known(self, name: str) -> bool:
        """Whether a run or a sweep has this name."""
        return self.store.runs.get(name) is not None or self.store.sweeps.get(name) is not None

    async def probe(self, pin: str | None) -> None:
        """Refresh the facts of the machines that may run it."""
        fleet = self.context.fleet
        allowed = [machine.runner for machine in eligible(Waiting("", pin=pin), fleet.now())]
        await fleet.check_all([runner.name for runner in allowed if runner.facts], fresh=FRESH, patience=PATIENCE)
        await asyncio.gather(*(fleet.check(runner.name, fresh=FRESH) for runner in allowed if not runner.facts))

    async def planned(self, submission: Submission, name: str) -> tuple[Planner, list[Job]]:
        """Return the jobs and the planner that decided on them. The results it wants to reuse are verified between two
        passes, because that takes a while with remote storage."""
        mirror = self.context.mirror(submission.snapshot.repo)
        files = await asyncio.to_thread(mirror.files, submission.snapshot)
        damages: dict[str, str | None] = {}
        while True:
            planner = Planner(self.store, files, name, rfc3339(time.time()), damages)
            jobs = planner.plan(submission)
            if not planner.unverified:
                return planner, jobs
            for job in planner.unverified:
                damages[job.id] = await self.context.artifacts.damage(job)

    def refuse_impossible(self, submission: Submission, draft: Submitted) -> None:
        """Raise UsageError if a job could never run, unless it may wait for a runner. A plan is shown without any."""
        machines = self.context.fleet.now()
        nowhere = not eligible(Waiting("", pin=draft.run.pin), machines)
        if submission.wait_for_runner or (submission.dry_run and nowhere):
            return
        scheduler = self.engine.scheduler
        for job in draft.unfinished:
            why = impossible(scheduler.queue.item(job, draft.run), machines, scheduler.max_gpus_per_user)
            if why:
                here = "" if submission.runner else ", or add --local to run it on this machine"
                add = f"dstack runners add HOST{here}"
                wait = "see `dstack runners`, or add --wait-for-runner to wait for a runner that can run it"
                hint = wait if eligible(Waiting(""), machines) else add
                raise UsageError(f"{job.workflow} can't run: {why.text}", hint=hint, code=why.code)

    def refuse_taken(self, name: str, once: str) -> None:
        """Raise ConflictError if a run or sweep has this name, or if it is one that a sweep gives to its trials."""
        if self.store.runs.get(name):
            hint = f"choose another --name; to see that run: dstack runs {name}"
            raise ConflictError(f"a run named '{name}' already exists", hint=hint)
        sweep, _, trial = name.rpartition("-")
        for other in (name, sweep) if trial[:1].isdigit() else (name,):
            if not once.startswith(f"sweep {name}") and self.store.sweeps.get(other):
                hint = f"choose another --name; to see the sweep: dstack sweep show {other}"
                raise ConflictError(f"the name '{name}' belongs to the sweep {other}", hint=hint)

    def refuse_second(self, submission: Submission) -> None:
        """Raise TryAgainError if a run of this repository and workflow is unfinished."""
        for name in dict.fromkeys(job.run for job in self.store.jobs.unfinished()):
            run = self.store.runs.require(name)
            if run.workflow == submission.workflow and run.snapshot.repo == submission.snapshot.repo:
                raise TryAgainError(
                    f"'{run.workflow}' already has an unfinished run, {name} of {run.user}; nothing was submitted",
                    hint=f"dstack logs -f {name}, or dstack stop {name}",
                )

    def refuse_unknown_secrets(self, jobs: Sequence[Job]) -> None:
        """Raise UsageError if a job needs a secret that is not set."""
        known = self.store.secrets.names()
        for job in jobs:
            missing = [name for name in job.definition.needed_secrets if name not in known and not job.finished]
            if missing:
                message = f"{job.workflow} needs the secret '{missing[0]}', which is not set"
                raise UsageError(message, hint=f"dstack secrets set {missing[0]}", code=ReasonCode.SECRET_MISSING)


async def require_code(context: Context, name: str, workflow: str, snapshot: Snapshot) -> None:
    """Raise NotFoundError unless the server still has all of the code of a run or sweep with this name."""
    if not await asyncio.to_thread(context.mirror(snapshot.repo).has, snapshot):
        hint = f"from a working tree, type: dstack run {workflow}"
        raise NotFoundError(f"the code of {name} is no longer on the server", hint=hint)


def new_run(submission: Submission, planner: Planner, pin: str | None) -> Run:
    """Return the run of a submission. `pin` is the name or label of the runners that it is limited to."""
    return Run(
        name=planner.run,
        workflow=submission.workflow,
        user=submission.user,
        submitted_at=planner.now,
        snapshot=submission.snapshot,
        variables=submission.variables[submission.workflow].all,
        pin=pin,
        environment=submission.environment,
        workflows=submission.workflows,
        inputs=submission.variables,
        gpus=submission.gpus,
        timeout=submission.timeout,
        once=submission.once,
        accepted=moment(),
        trigger=submission.trigger,
    )
