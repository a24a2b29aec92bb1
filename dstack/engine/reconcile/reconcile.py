"""Asks each machine once what of this server's lies and runs there, before anything is launched on it."""

from __future__ import annotations

import time
from collections.abc import Callable

from dstack.commands.command import other_server
from dstack.commands.machine.take_stock import FoundAttempt, Stock
from dstack.decide import Claim
from dstack.engine.context import Context, log
from dstack.engine.lifecycle.stored import ended_as, ended_unknown
from dstack.engine.reconcile.adopt import adopt, launch_record
from dstack.errors import EngineSilentError
from dstack.model.api.runners import OrphanView
from dstack.model.job.job import ExitCode, Job
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.paths import attempt_id, attempt_number
from dstack.model.runner.host_context import folder_name
from dstack.model.runner.machine import same_folder, sharing
from dstack.model.runner.runner import Runner
from dstack.model.text.units import rfc3339
from dstack.store.tables.contents import Retained


class Reconciler:
    """`drive` starts to follow a job. A machine that does not answer holds up nobody but the jobs that may be on it."""

    def __init__(self, context: Context, drive: Callable[[str], None]) -> None:
        self.context = context
        self.store = context.store
        self.fleet = context.fleet
        self.drive = drive
        self.fleet.greet = self.greet

    async def greet(self, name: str) -> None:
        """Ask a runner, unless it has been asked in this server's life. Raises HostError; may be tried again."""
        async with self.context.locks["greet", name]:
            asked = name in self.fleet.owned and name not in self.fleet.doubted
            if not asked and self.store.runners.get(name):
                await self.look(name)

    async def look(self, name: str) -> None:
        """Ask a runner what is there: adopt what the records don't know yet, and note what nobody owns. Raises
        OtherServerError if the machines belong to the server of which this one is a copy."""
        if original := self.store.identity.copied:
            raise other_server(original)
        runner = self.store.runners.require(name)
        machine, aliases = self.machine(runner), self.aliases(runner)
        before = self.attempts(machine)
        stock = await self.take(runner)
        ours = [found for found in stock.attempts.values() if found.lies or machine == aliases]
        adopted = [found for found in ours if adopt(self.store, name, found, aliases)]
        await self.settle(name)
        known = before | self.attempts(machine)
        self.fleet.orphans[name] = [
            orphan(found) for found in stock.attempts.values() if found.name not in known and not self.waits(found)
        ] + [OrphanView(name=kept, what="artifacts") for kept in stock.kept if not self.owns(kept)]
        self.store.restoration.asked(name)
        self.fleet.owned.add(name)
        self.fleet.doubted.discard(name)
        for found in adopted:
            log.info("%s: adopted %s, which the records did not know there", name, found.name)
            self.drive(attempt_number(found.name)[0])

    async def take(self, runner: Runner) -> Stock:
        """Become the owner of the server's folder on a runner; return what is there."""
        identity, host = self.store.identity, self.fleet.host(runner)
        executor = self.context.executors[runner.kind](runner, host, self.fleet.host_context(runner))
        owner = identity.owner
        await self.store.database.synced()  # after a power cut, it would not know that it is the owner
        stock = await executor.take_stock(owner, identity.epoch, identity.instances)
        if stock.silence is not None:
            raise EngineSilentError("Docker", runner.name, stock.silence)
        return stock

    def machine(self, runner: Runner) -> set[str]:
        """The runners that may be the same machine. Their containers are listed here, too, and belong to them."""
        return {runner.name, *(each.name for each in sharing(runner, self.store.runners.all()))}

    def aliases(self, runner: Runner) -> set[str]:
        """The runners that are the same folder on the same machine."""
        others = sharing(runner, self.store.runners.all())
        return {runner.name, *(each.name for each in others if same_folder(runner, each))}

    def attempts(self, runners: set[str]) -> set[str]:
        """The attempts of which something may be on these runners."""
        jobs = [job for job in self.store.jobs.unfinished() if job.runner in runners]
        left = [job for runner in runners for job in self.store.jobs.to_discard(runner)]
        return {attempt_id(job.id, job.attempt) for job in [*jobs, *left]}

    def waits(self, found: FoundAttempt) -> bool:
        """Whether it is an attempt that was prepared in vain, and whose job still waits: the next launch uses it."""
        job = self.job(found.name)
        return job is not None and not job.finished and not found.begun

    def owns(self, attempt: str) -> bool:
        """Whether retained artifacts belong to a job that is known. Record them if an older state did not."""
        job = self.job(attempt)
        if job is None or attempt != attempt_id(job.id, job.attempt):
            return False
        if job.discarded and job.runner and self.store.retained_artifacts.get(job.id) is None:
            kept = Retained(job.id, attempt, job.runner, rfc3339(time.time()))
            self.store.retained_artifacts.add(kept)
        return True

    def job(self, attempt: str) -> Job | None:
        try:
            return self.store.jobs.get(attempt_number(attempt)[0])
        except ValueError:
            return None

    def part(self, *, new: bool) -> None:
        """Take all machines over, or become a `new` server, which leaves the unfinished jobs and all that lies on the
        machines to the other one."""
        if new:
            text = "this server has a new identity; the job belongs to the server of which it was a copy"
            ended = {"status": Status.LOST, "exit_code": ExitCode.DSTACK, "finished_at": rfc3339(time.time())}
            with self.store.database.transaction():
                for job in self.store.jobs.unfinished():
                    self.store.jobs.change(job.id, reason=Reason(ReasonCode.SERVER_COPIED, text), **ended)
                for runner in self.store.runners.all():
                    for job in self.store.jobs.to_discard(runner.name):
                        self.store.jobs.change(job.id, discarded=True)
                    kept = self.store.retained_artifacts.of(runner.name)
                    self.store.retained_artifacts.remove(each.attempt for each in kept)
            self.store.identity.renew()
        else:
            self.store.identity.take_over()
        for runner in self.store.runners.all():
            self.fleet.forget(runner.name)

    async def settle(self, name: str) -> None:
        """End the queued jobs from before a restore that had ended: their stored artifacts say so or, once the last
        runner is asked, which is `name`, a log of which no runner knows the job. Raises StorageError."""
        restoration = self.store.restoration
        last = set(restoration.unasked) <= {name}
        for job in self.store.jobs.unfinished():
            if job.status is not Status.QUEUED or not restoration.doubt(job):
                continue
            stored = await self.context.artifacts.result(job)
            ended = ended_as(stored) if stored else None
            if last and not ended and self.store.logs.begun(job.id, job.attempt, job.log_start):
                ended = ended_unknown()
            if ended and self.store.jobs.require(job.id).status is Status.QUEUED:
                self.store.jobs.change(job.id, **ended)


def orphan(found: FoundAttempt) -> OrphanView:
    """Describe an attempt that no job owns."""
    never = found.claim in (Claim.NONE, Claim.FENCED) and not found.container
    what = "running" if found.runs else "prepared" if never else "ended"
    left = launch_record(found)
    return OrphanView(
        name=folder_name(found.name),
        what=what,
        run=left.run.name if left else None,
        workflow=left.job.workflow if left else None,
    )
