"""The life of one job, from its placement to its end."""

from __future__ import annotations

import asyncio
import random
import time

from msgspec.structs import replace

from dstack.engine.context import Context, log
from dstack.engine.lifecycle.attend import attend
from dstack.engine.lifecycle.conditions import condition, failure, full
from dstack.engine.lifecycle.ending import STOPPED, Ending
from dstack.engine.lifecycle.launch import start
from dstack.engine.lifecycle.silence import Silence
from dstack.engine.lifecycle.stored import NOBODY_KNOWS, ended_as
from dstack.engine.lifecycle.upload_status import UploadProgress
from dstack.engine.lifecycle.watch import blamed, end_in_time, until_ended
from dstack.engine.retention.clear import remove_aborted
from dstack.engine.transfer.collect import Collector, remove_stored
from dstack.engine.transfer.sync import Sync
from dstack.errors import (
    DstackError,
    EngineSilentError,
    HostError,
    HostUnreachableError,
    OtherServerError,
    ServerTroubleError,
    StorageError,
    StorageUnavailableError,
    server_trouble,
)
from dstack.model.job.job import ExitCode, Job, Origin
from dstack.model.job.reasons import Reason, ReasonCode, failed_with, preempted
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339
from dstack.scheduling.reasons import STOPPED_EARLY, restored

TOLD = 10.0
"""Seconds that a container which has ended waits for the answer to being told to end."""
ASKED = 1.0
"""Seconds between two looks whether all runners have been asked since an older state was restored."""
UNKNOWN_LAUNCH = Origin("", "")
"""The boot and the daemons of a launch of which only its log is known."""
ABORTS = 3
"""How many times an aborted job tries to remove what a storage has of it, before it ends without."""
LONGEST_PAUSE = 30.0
"""Seconds between two tries to reach a host."""
SILENCE = 600.0
"""Seconds without an answer after which a stopped job no longer waits for artifacts that are still on its runner."""


class Drive(Ending):
    """Takes a job through its states. Every step is committed before it acts and may be repeated, so a drive can be
    cancelled at any point and replaced by another: that is how a server restarts, and how a stop takes effect."""

    def __init__(self, context: Context, job_id: str) -> None:
        super().__init__(context, job_id)
        self.failures = 0
        self.failing_since = ""
        self.collector: Collector | None = None

    async def run(self) -> None:
        """Drive the job to its end, or back into the queue. Raises ServerTroubleError if the server's own machine is
        in the way; the job keeps its state, and another call goes on from there."""
        while not self.job.finished and self.job.status is not Status.QUEUED:
            try:
                await self.told_step()
                self.failures = 0
                self.context.silent.pop(self.id, None)
            except ServerTroubleError:
                raise  # whoever keeps the drive going tries again: the job's state can't even be recorded
            except DstackError as trouble:
                await self.cope(trouble)
            except Exception as bug:
                if server_trouble(bug):
                    raise
                log.exception("job %s: unexpected error", self.id)
                message = f"internal error in dstack: {bug!r}; for details: dstack server logs"
                await self.cope(HostError(message, code=ReasonCode.INTERNAL_ERROR))

    async def told_step(self) -> None:
        """Take a step, and tell meanwhile if the runner falls silent."""
        silence = asyncio.create_task(Silence(self).run())
        try:
            await self.step(self.job)
        finally:
            silence.cancel()

    async def step(self, job: Job) -> None:
        ending = job.stop or job.preempted_by
        if job.status is Status.PREPARING and not (ending or job.final_status):
            await self.prepare()
            return
        await self.context.fleet.greet(job.runner or "")
        if job.status is Status.PREPARING:
            await (self.withdraw() if ending else self.refuse())
        elif job.status is Status.RUNNING:
            await self.watch()
        elif job.status is Status.UPLOADING:
            await self.collect()

    async def cope(self, trouble: DstackError) -> None:
        """Handle a failed step: end a job that can't be started, and repeat any other step for as long as it takes."""
        job = self.job
        if isinstance(trouble, OtherServerError):  # nothing may be done there
            self.context.fleet.doubted.add(job.runner or "")
            await self.pause(job, trouble)
            return
        unreachable = isinstance(trouble, HostUnreachableError)
        unavailable = isinstance(trouble, StorageUnavailableError)
        if job.stop == "abort" and (unreachable or (unavailable and self.failures >= ABORTS)):
            text = "aborted; the storage is not available: what it has of the job is removed when the run is deleted"
            if unreachable:
                text = f"aborted; runner '{job.runner}' is not answering, and its container is removed once it does"
                self.context.fleet.unsure.add(job.runner or "")
            await self.keep_log()
            self.finish(Status.STOPPED, ExitCode.STOPPED, Reason(ReasonCode.ABORTED, text))
            return
        may_start = job.status is Status.PREPARING and not job.stop and not job.final_status
        if may_start and not (unreachable or unavailable):
            self.give_up(trouble)
            return
        if unreachable:
            self.context.silent.setdefault(self.id, time.monotonic())
        else:
            self.context.silent.pop(self.id, None)
        if job.stop and job.status is Status.UPLOADING:
            why = self.given_up(job, trouble)
            try:
                if why:
                    await self.salvage(why)
                    return
            except StorageError as other:
                trouble = other
        await self.pause(job, trouble)

    def given_up(self, job: Job, trouble: DstackError) -> str | None:
        """Why a stopped job no longer waits for its artifacts, if it does not."""
        since = self.context.silent.get(self.id)
        if since is not None and time.monotonic() - since > SILENCE:
            return f"runner '{job.runner}' has not answered since {job.unreachable_since}"
        return f"the disk of {job.runner} is full" if full(trouble) else None

    async def pause(self, job: Job, trouble: DstackError) -> None:
        """Record what is wrong, then wait, longer each time."""
        unreachable = isinstance(trouble, HostUnreachableError)
        self.failures += 1
        if self.failures == 1:
            self.failing_since = rfc3339(time.time())
        since = self.failing_since
        if unreachable:
            heard = None if isinstance(trouble, EngineSilentError) else self.last_answer
            since = job.unreachable_since or (rfc3339(heard) if heard else since)
        reason = condition(job, trouble, since)
        self.change(reason=reason, progress=None, unreachable_since=since if unreachable else None)
        pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(self.failures, 10)) * random.uniform(0.75, 1.25)
        log.warning("job %s: %s; next try in at most %.1f s", self.id, trouble.message, pause)
        await self.context.fleet.back(job.runner or "", pause, hurry=unreachable and self.failures == 1)

    def give_up(self, trouble: DstackError) -> None:
        """Record that the job can't be launched, and why: the next server has to know who fenced it."""
        self.change(final_status=Status.FAILED, final_reason=failure(self.job, trouble), cause="error")

    async def refuse(self) -> None:
        """End a job that can't be launched, once its runner confirms that it did not start."""
        if await self.fenced(None):
            await self.close(Status.FAILED, ExitCode.DSTACK, self.job.final_reason)

    async def prepare(self) -> None:
        """Launch the job, or queue it again if its runner could not even be asked. The intent is on disk first."""
        runner, first = self.job.runner or "", not self.job.launching
        self.change(launching=True)
        await self.store.database.synced()
        try:
            await self.context.fleet.greet(runner)
            if self.job.status is not Status.PREPARING or self.job.runner != runner:
                return
            if self.store.restoration.knows_less(self.job) and await self.begun():
                return
            if not first and await self.had_ended():
                return
            for name in self.context.fleet.unsure.intersection(self.context.fleet.alike(runner)):
                await remove_aborted(self.context, name)
            await start(self)
        except HostError as trouble:
            if not first or trouble.sent:
                raise
            reason = Reason(failed_with(trouble), f"{self.job.runner}: {trouble.message}")
            self.context.fleet.recheck(self.job.runner or "")
            unplaced = {"launching": False, "runner": None, "gpus": (), "progress": None, "unreachable_since": None}
            self.change(status=Status.QUEUED, reason=reason, **unplaced)

    async def begun(self) -> bool:
        """Whether the job must not be launched although its record says so: it is older than a launch of which there is
        a log, which is followed now, or than one that a runner may know of which has not been asked."""
        if unasked := self.store.restoration.doubt(self.job):
            self.change(reason=restored(unasked))
            await asyncio.sleep(ASKED)
            return True
        if not self.store.logs.begun(self.id, self.job.attempt, self.job.log_start):
            return False
        self.change(
            status=Status.RUNNING, launch=UNKNOWN_LAUNCH, started_at=self.job.started_at or rfc3339(time.time())
        )
        return True

    async def had_ended(self) -> bool:
        """End a job whose stored artifacts say that it had ended: its record is older. Return whether they do."""
        stored = await self.context.artifacts.result(self.job)
        if stored:
            self.will_store()
            self.change(**ended_as(stored))
        return stored is not None

    async def watch(self) -> None:
        """Follow the log until the container has ended, and pass on a stop."""
        tasks = self.context.tasks
        duty = asyncio.create_task(tasks.keep(f"ending job {self.id} in time", lambda: end_in_time(self)))
        beside = [
            asyncio.create_task(tasks.keep(f"syncing artifacts of job {self.id}", Sync(self).run)),
            asyncio.create_task(tasks.keep(f"looking at job {self.id}", lambda: attend(self))),
        ]
        try:
            decision = await until_ended(self)
            if self.job.stop or self.job.preempted_by or self.job.expired:
                await asyncio.wait({duty}, timeout=TOLD)
        finally:
            duty.cancel()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        await self.append_log(self.executor.read_log(self.attempt, self.log_offset))
        await self.keep_log()
        if decision.lost:
            if await self.had_ended():
                return
            removed = decision.reason and decision.reason.code is ReasonCode.LOST_REMOVED
            if removed and self.store.restoration.knows_less(self.job):
                decision = replace(decision, reason=NOBODY_KNOWS)
        self.record_end(await blamed(self, decision))

    async def withdraw(self) -> None:
        """Stop a job whose container may or may not have started: the fence decides."""
        if self.job.launching and not await self.fenced(self.grace):
            return
        reason = STOPPED_EARLY if self.job.stop else preempted(self.job.preempted_by or "")
        await self.close(Status.STOPPED, ExitCode.STOPPED, reason)

    async def fenced(self, grace: int | None) -> bool:
        """Keep the job from starting; return whether its commands never ran. A job whose commands did is running, and
        is told to end unless `grace` is None."""
        stopped = await self.stop(grace)
        if stopped.outcome != "fenced":
            now = rfc3339(time.time())
            self.change(status=Status.RUNNING, started_at=now, final_status=None, final_reason=None, cause=None)
        return stopped.outcome == "fenced"

    async def collect(self) -> None:
        """Store what the job made, then end it."""
        job = self.job
        if job.stop == "abort":
            await remove_stored(self)
            self.finish(Status.STOPPED, ExitCode.STOPPED, Reason(ReasonCode.ABORTED, "aborted; nothing was stored"))
            return
        self.collector = Collector(self, UploadProgress(self))
        found = await self.collector.store()
        job = self.settle()
        end, code, reason = job.final_status or Status.FAILED, job.exit_code, job.final_reason
        made = await self.collector.commit(found, end)
        if found.gone and made.complaint and self.store.restoration.knows_less(job):
            self.change(cause="lost")
            end, code, reason = Status.LOST, ExitCode.DSTACK, NOBODY_KNOWS
        elif made.complaint and end is Status.DONE:
            self.change(cause="error")
            end, code = Status.FAILED, ExitCode.NO_ARTIFACT
            reason = Reason(ReasonCode.ARTIFACT_MISSING, made.complaint)
        elif job.stop and job.preempted_by:
            reason = Reason(ReasonCode.STOPPED_BY_USER, STOPPED)
        await self.close(end, code, reason, made)

    async def salvage(self, why: str) -> None:
        """End a stopped job whose runner holds artifacts that can't be collected."""
        collector = self.collector or Collector(self, UploadProgress(self))
        outcome = await collector.salvage(Status.STOPPED)
        text = f"{STOPPED}; {why}, so artifacts that were not stored by then are lost"
        self.finish(Status.STOPPED, ExitCode.STOPPED, Reason(ReasonCode.STOPPED_BY_USER, text), outcome)
