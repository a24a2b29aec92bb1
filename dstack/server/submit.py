"""Takes a submission in: its code into the mirror, its run and jobs into the store."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
from msgspec import structs

from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.plan import Planner
from dstack.engine.schedule import Waiting, eligible, impossible, schedule
from dstack.errors import ConflictError, NotFoundError, UsageError
from dstack.model import names, wire
from dstack.model.api import Plan, PlannedJob, RunView, Submission
from dstack.model.job import Job, Run
from dstack.model.runner import Address, Runner
from dstack.model.selection import TreeFile
from dstack.model.times import rfc3339
from dstack.server.lookup import run_named
from dstack.server.views import job_view, repo_view, run_view

LOCAL = "local"
"""The name of the runner that is the server's own machine."""
LISTED = 100
"""Files that a dry run's answer lists, the largest first."""
LONGEST_HEAD = 64 * 1024 * 1024


class Intake:
    """What `POST /runs` does."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self.context = context
        self.engine = engine
        self.store = context.store

    async def take(self, body: AsyncIterator[bytes]) -> RunView | Plan:
        """Read a submission and record it as a run, or say what it would do. Raises UsageError for one that can't
        run, MissingBaseError for a pack that builds on a commit which is not here."""
        submission, pack = await self.read(body)
        try:
            submission = await self.replayed(submission) if submission.from_run else submission
            if not submission.from_run:
                mirror = self.context.mirror(submission.snapshot.repo)
                await asyncio.to_thread(mirror.receive, submission.snapshot, pack)
        finally:
            pack.unlink()
        name = self.name(submission)
        pin = LOCAL if submission.local else submission.runner
        planner = await self.planner(submission, name)
        jobs = planner.plan(submission)
        await self.look(pin, submission)
        self.refuse_impossible(jobs, pin, submission)
        if submission.dry_run:
            return await self.plan(submission, planner, jobs, pin)
        return self.record(submission, planner, jobs, pin)

    async def read(self, body: AsyncIterator[bytes]) -> tuple[Submission, Path]:
        """The submission's line, and the pack behind it in a file."""
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
        """The submission with the code of the run that it repeats. Raises NotFoundError if that is gone."""
        run = run_named(self.store, submission.from_run or "")
        if not await asyncio.to_thread(self.context.mirror(run.snapshot.repo).has, run.snapshot):
            hint = "submit it from a working tree"
            raise NotFoundError(f"the code of {run.name} is no longer on the server", hint=hint)
        return structs.replace(submission, snapshot=run.snapshot)

    def name(self, submission: Submission) -> str:
        """The run's name: the user's if it is free, else a new one."""
        if submission.name is None:
            return names.run_name(lambda name: self.store.runs.get(name) is not None, random.SystemRandom())
        names.check_run_name(submission.name)
        if self.store.runs.get(submission.name):
            hint = f"choose another --name; the other one: dstack runs {submission.name}"
            raise ConflictError(f"a run of the name '{submission.name}' exists already", hint=hint)
        return submission.name

    async def planner(self, submission: Submission, name: str) -> Planner:
        """What decides which jobs it takes."""
        mirror = self.context.mirror(submission.snapshot.repo)
        found = await asyncio.to_thread(mirror.files, submission.snapshot.tree)
        files = [TreeFile(file.path, file.mode, file.id) for file in found]
        return Planner(self.store, files, name, rfc3339(time.time()), self.context.damage)

    async def look(self, pin: str | None, submission: Submission) -> None:
        """Have fresh news of the machines that may run it."""
        if submission.local and self.store.runners.get(LOCAL) is None:
            self.store.runners.add(Runner(name=LOCAL, address=Address(), hidden=True))
        allowed = eligible(pin, self.context.machines.now())
        await asyncio.gather(*(self.context.machines.check(machine.runner.name, fresh=15) for machine in allowed))

    def refuse_impossible(self, jobs: list[Job], pin: str | None, submission: Submission) -> None:
        """Raise UsageError for what could never run."""
        machines = self.context.machines.now()
        for job in jobs:
            if job.finished:
                continue
            why = impossible(Waiting(job.id, job.definition.resources.gpu, pin), machines)
            if why and not (submission.dry_run and not eligible(pin, machines)):
                add = "dstack runners add HOST, or run it on this machine: dstack run --local"
                hint = add if not eligible(None, machines) else "see `dstack runners`"
                raise UsageError(f"{job.workflow} can't run: {why}", hint=hint)

    async def plan(self, submission: Submission, planner: Planner, jobs: list[Job], pin: str | None) -> Plan:
        """What would happen, and with what code."""
        waiting = [Waiting(job.id, job.definition.resources.gpu, pin) for job in jobs if not job.finished]
        made = schedule(waiting, self.context.machines.now())
        snapshot = submission.snapshot
        mirror = self.context.mirror(snapshot.repo)
        changes = await asyncio.to_thread(mirror.changes, snapshot.commit, snapshot.tree)
        sizes = await asyncio.to_thread(mirror.sizes, snapshot.tree)
        planned = []
        for job in jobs:
            placement = made.placements.get(job.id)
            planned.append(
                PlannedJob(
                    workflow=job.workflow,
                    image=job.image,
                    cached_from=job.cached_from,
                    cache=job_view(job).cache,
                    runner=placement.runner if placement else None,
                    reason=made.reasons.get(job.id),
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
            warnings=planner.warnings,
        )

    def record(self, submission: Submission, planner: Planner, jobs: list[Job], pin: str | None) -> RunView:
        """Write run and jobs in one transaction, and set the engine to work."""
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
        )
        with self.store.database.transaction():
            self.store.runs.add(run)
            for job in jobs:
                self.store.jobs.add(job)
                self.store.keys.add(job.key, planner.components[job.key])
        self.engine.poke()
        return structs.replace(run_view(run, jobs), warnings=planner.warnings)
