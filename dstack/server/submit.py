"""Accepts submissions: the code goes into the mirror, the run and its jobs into the store."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
from msgspec import structs

from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.retention.mirror_gc import tidy
from dstack.engine.submission.plan import Planner
from dstack.errors import ConflictError, NotFoundError, TryAgainError, UsageError
from dstack.model.api import wire
from dstack.model.api.runs import Plan, PlannedJob, RunView, Submission
from dstack.model.code.tree import PathMode, TreeFile
from dstack.model.job import names
from dstack.model.job.job import Job, Run
from dstack.model.runner.runner import Address, Runner
from dstack.model.text.units import rfc3339
from dstack.scheduling.schedule import eligible, impossible, schedule
from dstack.scheduling.types import Waiting
from dstack.server.lookup import run_named
from dstack.server.views import job_view, repo_view, run_view

LOCAL = "local"
"""The name of the runner that is the server's own machine."""
FRESH = 15.0
"""Seconds for which a probe is fresh enough to place jobs by."""
PATIENCE = 2.0
"""Seconds that a submission waits for machines that don't answer."""
LISTED = 100
"""How many files a dry run lists, largest first."""
LONGEST_HEAD = 64 * 1024 * 1024


class Intake:
    """Handles `POST /runs`."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self.context = context
        self.engine = engine
        self.store = context.store

    async def take(self, body: AsyncIterator[bytes]) -> RunView | Plan:
        """Read a submission and record it as a run, or return its plan for a dry run. Raises UsageError if it can't
        run, and MissingBaseError if its pack builds on a commit that the server lacks."""
        submission, pack = await self.read(body)
        try:
            submission = await self.replayed(submission) if submission.from_run else submission
            if not submission.from_run:
                mirror = self.context.mirror(submission.snapshot.repo)
                await asyncio.to_thread(mirror.receive, submission.snapshot, pack)
        finally:
            pack.unlink()
        known = self.known(submission)
        if known is not None:
            return known
        name = self.name(submission)
        pin = LOCAL if submission.local else submission.runner
        await self.look(pin, submission)
        # Plan and record without an await between, so that two submissions needing the same job share it.
        planner, jobs = await self.planned(submission, name)
        self.refuse_unknown_secrets(jobs)
        self.refuse_impossible(jobs, pin, submission)
        if submission.dry_run:
            return await self.plan(submission, planner, jobs, pin)
        return self.record(submission, planner, jobs, pin)

    async def read(self, body: AsyncIterator[bytes]) -> tuple[Submission, Path]:
        """Return the submission from the first line, and the file with the pack that follows it."""
        head = bytearray()
        with NamedTemporaryFile(dir=self.context.layout.incoming, suffix=".pack", delete=False) as pack:
            complete = False
            async for data in body:
                if complete:
                    await asyncio.to_thread(pack.write, data)
                    continue
                head += data
                if b"\n" in data:
                    line, rest = bytes(head).split(b"\n", 1)
                    head, complete = bytearray(line), True
                    pack.write(rest)
                elif len(head) > LONGEST_HEAD:
                    raise UsageError("the submission is too large")
        try:
            return wire.decode(bytes(head), Submission), Path(pack.name)
        except msgspec.DecodeError as error:
            Path(pack.name).unlink()
            raise UsageError(f"the submission can't be read: {error}") from error

    async def replayed(self, submission: Submission) -> Submission:
        """Return the submission with the code of the run that it repeats. Raises NotFoundError if that code is gone."""
        run = run_named(self.store, submission.from_run or "")
        if not await asyncio.to_thread(self.context.mirror(run.snapshot.repo).has, run.snapshot):
            hint = f"from a working tree, type: dstack run {run.workflow}"
            raise NotFoundError(f"the code of {run.name} is no longer on the server", hint=hint)
        return structs.replace(submission, snapshot=run.snapshot)

    def known(self, submission: Submission) -> RunView | None:
        """Return the run made earlier with the same idempotency key, or None. Raises TryAgainError if it is a singleton
        and one is unfinished."""
        if submission.dry_run:
            return None
        before = self.store.runs.submitted_with(submission.once) if submission.once else None
        if before:
            return run_view(before, self.store.jobs.of(before.name))
        if submission.singleton:
            self.refuse_second(submission)
        return None

    def refuse_unknown_secrets(self, jobs: list[Job]) -> None:
        """Raise UsageError for a secret that is not set."""
        known = self.store.secrets.names()
        for job in jobs:
            missing = [name for name in job.definition.needed_secrets if name not in known and not job.finished]
            if missing:
                message = f"{job.workflow} needs the secret '{missing[0]}', which is not set"
                raise UsageError(message, hint=f"dstack secrets set {missing[0]}")

    def refuse_second(self, submission: Submission) -> None:
        """Raise TryAgainError if a run of this repository and workflow is unfinished."""
        for name in dict.fromkeys(job.run for job in self.store.jobs.unfinished()):
            run = self.store.runs.require(name)
            if run.workflow == submission.workflow and run.snapshot.repo == submission.snapshot.repo:
                raise TryAgainError(
                    f"'{run.workflow}' already has an unfinished run, {name} of {run.user}; nothing was submitted",
                    hint=f"dstack logs -f {name}, or dstack stop {name}",
                )

    def name(self, submission: Submission) -> str:
        """Return the user's name for the run, or a new one. Raises ConflictError if the user's is taken."""
        if submission.name is None:
            return names.run_name(lambda name: self.store.runs.get(name) is not None, random.SystemRandom())
        names.check_run_name(submission.name)
        self.refuse_taken(submission.name)
        return submission.name

    def refuse_taken(self, name: str) -> None:
        """Raise ConflictError if a run has this name."""
        if self.store.runs.get(name):
            hint = f"choose another --name; to see that run: dstack runs {name}"
            raise ConflictError(f"a run named '{name}' already exists", hint=hint)

    async def planned(self, submission: Submission, name: str) -> tuple[Planner, list[Job]]:
        """Return the jobs and the planner that decided on them. The results it wants to reuse are verified between two
        passes, because that takes a while with remote storage."""
        files = await self.files(submission)
        looked: dict[str, str | None] = {}
        while True:
            wanted: dict[str, Job] = {}

            def damage(job: Job, wanted: dict[str, Job] = wanted) -> str | None:
                if job.id not in looked:
                    wanted[job.id] = job
                return looked.get(job.id)

            planner = Planner(self.store, files, name, rfc3339(time.time()), damage)
            jobs = planner.plan(submission)
            if not wanted:
                return planner, jobs
            for job in wanted.values():
                looked[job.id] = await self.context.artifacts.damage(job)

    async def files(self, submission: Submission) -> list[TreeFile]:
        """Return the files and folders of the snapshot that count."""
        mirror = self.context.mirror(submission.snapshot.repo)
        return await asyncio.to_thread(mirror.files, submission.snapshot)

    async def look(self, pin: str | None, submission: Submission) -> None:
        """Refresh the facts of the machines that may run it."""
        if submission.local and self.store.runners.get(LOCAL) is None:
            self.store.runners.add(Runner(name=LOCAL, address=Address(), hidden=True))
        allowed = eligible(Waiting("", pin=pin), self.context.fleet.now())
        known = [machine.runner.name for machine in allowed if machine.runner.facts]
        await self.context.fleet.check_all(known, fresh=FRESH, patience=PATIENCE)
        unknown = [machine.runner.name for machine in allowed if not machine.runner.facts]
        await asyncio.gather(*(self.context.fleet.check(name, fresh=FRESH) for name in unknown))

    def refuse_impossible(self, jobs: list[Job], pin: str | None, submission: Submission) -> None:
        """Raise UsageError if a job could never run."""
        machines = self.context.fleet.now()
        for job in jobs:
            if job.finished or submission.wait_for_runner:
                continue
            why = impossible(self.waiting(job, pin, submission), machines, self.engine.max_gpus_per_user)
            if why and not (submission.dry_run and not eligible(Waiting("", pin=pin), machines)):
                add = "dstack runners add HOST, or run it on this machine: dstack run --local"
                wait = "see `dstack runners`, or wait for a runner that can run it: dstack run --wait-for-runner"
                hint = add if not eligible(Waiting(""), machines) else wait
                raise UsageError(f"{job.workflow} can't run: {why.text}", hint=hint, code=why.code)

    def waiting(self, job: Job, pin: str | None, submission: Submission) -> Waiting:
        """Return a job as the scheduler sees it, before its run is recorded."""
        run = Run(
            name=job.run,
            workflow=submission.workflow,
            user=submission.user,
            submitted_at=job.submitted_at,
            snapshot=submission.snapshot,
            variables={},
            pin=pin,
        )
        return self.engine.queue.item(job, run)

    async def plan(self, submission: Submission, planner: Planner, jobs: list[Job], pin: str | None) -> Plan:
        """Return what would happen, and with what code."""
        waiting = [self.waiting(job, pin, submission) for job in jobs if not job.finished]
        leases = self.engine.queue.leases(self.store.jobs.unfinished())
        machines = self.context.fleet.now()
        made = schedule(waiting, machines, leases, time.time(), max_gpus=self.engine.max_gpus_per_user)
        snapshot = submission.snapshot
        mirror = self.context.mirror(snapshot.repo)
        changes = await asyncio.to_thread(mirror.changes, snapshot.commit, snapshot.tree)
        sizes = await asyncio.to_thread(mirror.sizes, snapshot.tree)
        modes = await asyncio.to_thread(mirror.modes_of, snapshot)
        planned = []
        for job in jobs:
            placement, reason = made.placements.get(job.id), made.reasons.get(job.id)
            planned.append(
                PlannedJob(
                    workflow=job.workflow,
                    image=job.image,
                    cached_from=job.cached_from,
                    cache=job_view(job).cache,
                    runner=placement.runner if placement else None,
                    reason=reason.text if reason else None,
                    reason_code=reason.code if reason else None,
                )
            )
        return Plan(
            workflow=submission.workflow,
            repo=repo_view(snapshot),
            jobs=planned,
            changes=sorted(changes, key=lambda change: -change.size),
            files=len(sizes),
            bytes=sum(file.size for file in sizes),
            largest=sizes[:LISTED],
            umask=snapshot.umask,
            modes=[PathMode(os.fsdecode(path) or ".", f"{mode:04o}") for path, mode in sorted(modes.by_path.items())],
            empty_folders=[os.fsdecode(path) for path in modes.empty],
            warnings=planner.warnings,
        )

    def record(self, submission: Submission, planner: Planner, jobs: list[Job], pin: str | None) -> RunView:
        """Record the run and its jobs in one transaction, and wake the engine."""
        known = self.known(submission)
        if known is not None:
            return known
        self.refuse_taken(planner.run)
        run = Run(
            name=planner.run,
            workflow=submission.workflow,
            user=submission.user,
            submitted_at=rfc3339(time.time()),
            snapshot=submission.snapshot,
            variables=submission.variables[submission.workflow].all,
            pin=pin,
            environment=submission.environment,
            workflows=submission.workflows,
            inputs=submission.variables,
            gpus=submission.gpus,
            timeout=submission.timeout,
            once=submission.once,
        )
        with self.store.database.transaction():
            self.store.runs.add(run)
            for job in jobs:
                self.store.jobs.add(job)
                self.store.cache_keys.add(job.key, planner.components[job.key])
        self.engine.poke()
        self.engine.background(tidy(self.context, run.snapshot.repo))
        return structs.replace(run_view(run, jobs), warnings=planner.warnings)
