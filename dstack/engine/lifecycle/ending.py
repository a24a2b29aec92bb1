"""Records how an attempt of a job ended, and ends the job or queues it for its next attempt."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from dstack.decide import Decision, Failed
from dstack.engine.context import log
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.upload_status import stopped
from dstack.engine.transfer.collect import Collected
from dstack.errors import DstackError
from dstack.model.job.attempts import again, following
from dstack.model.job.job import ExitCode, Job
from dstack.model.job.reasons import Reason, ReasonCode, preempted
from dstack.model.job.status import Status
from dstack.model.text.units import rfc3339, span, span_words

NOTHING = Collected(0, 0, None)
FORGOTTEN = "stopped by dstack before an older state was restored, which does not know why"
ABORTING = "aborted; what it stored is being removed"
KILLED = 137
"""The exit code of a process that got a SIGKILL."""


class Ending(JobOnRunner):
    """A job whose attempt ends."""

    async def keep_log(self) -> None:
        """Write the log to disk, before the record of an end, after which it is not read from the runner again."""
        await asyncio.to_thread(self.store.logs.sync, self.id)

    def record_end(self, decision: Decision) -> None:
        """Record how the container ended. Its artifacts are collected next."""
        job = self.job
        code, reason = decision.exit_code, decision.reason
        end = Status.LOST if decision.lost else Status.DONE if code == 0 else Status.FAILED
        if not (decision.asked or decision.lost or code == ExitCode.STOPPED):
            job = self.change(outran=bool(job.stop), expired=False, preempted_by=None, yielding=False)
        elif job.stop == "abort":
            end, code, reason = Status.STOPPED, ExitCode.STOPPED, Reason(ReasonCode.ABORTED, ABORTING)
        elif job.stop:
            end, code = Status.STOPPED, ExitCode.STOPPED
            reason = job.stopped(more=killed(decision))
        elif job.expired:
            limit = span_words(span(job.definition.max_duration or "0"))
            reason = Reason(ReasonCode.MAX_DURATION, f"max-duration: stopped after {limit}" + killed(decision))
            end, code = Status.FAILED, ExitCode.MAX_DURATION
        elif job.preempted_by:
            end, code, reason = Status.STOPPED, ExitCode.STOPPED, preempted(job.preempted_by)
        elif decision.lost:
            code = ExitCode.DSTACK
        elif code in (ExitCode.STOPPED, KILLED):
            end, code, reason = Status.STOPPED, ExitCode.STOPPED, Reason(ReasonCode.STOPPED_BY_USER, FORGOTTEN)
        changes: dict[str, Any] = {"final_status": end, "final_reason": reason, "reason": reason, "exit_code": code}
        if not (job.stop or job.expired or job.preempted_by) and end is not Status.DONE:
            changes["cause"] = decision.cause or ("lost" if decision.lost else "error")
        self.change(status=Status.UPLOADING, progress=None, unreachable_since=None, **changes)

    def settle(self) -> Job:
        """Decide how the job ends now that everything is stored; a later stop has no effect."""
        job = self.job
        if not job.stop or job.outran or job.final_status is Status.STOPPED:
            return job
        changes = {"final_status": Status.STOPPED, "final_reason": stopped(job), "cause": None}
        return self.change(exit_code=ExitCode.STOPPED, **changes)

    async def close(self, status: Status, code: int | None, reason: Reason | None, made: Collected = NOTHING) -> None:
        """End the job, or queue it for its next attempt."""
        job = self.job
        if not again(job, code):
            self.finish(status, code, reason, made)
            return
        await self.store.database.synced()
        try:
            await self.executor.discard(self.attempt, job.image)
        except DstackError as trouble:
            if job.status is Status.UPLOADING:
                raise
            log.info("job %s: nothing ran, but its folder could not be removed: %s", self.id, trouble.message)
        size = self.store.logs.size(self.id)
        self.change(**following(job, status, exit_code=code, reason=reason, log_size=size, now=time.time()))

    def finish(self, status: Status, code: int | None, reason: Reason | None, made: Collected = NOTHING) -> None:
        self.context.silent.pop(self.id, None)
        if self.job.launching:
            self.store.logs.begin(self.id)  # so that a record from before that does not launch it again
        self.change(
            status=status,
            exit_code=code,
            progress=None,
            reason=reason,
            finished_at=rfc3339(time.time()),
            unreachable_since=None,
            files=made.files,
            bytes=made.bytes,
        )


def killed(decision: Decision) -> str:
    """What to add to the reason of a job that was told to end."""
    cut = isinstance(decision, Failed) and decision.exit_code in (ExitCode.STOPPED, KILLED)
    return "; it did not exit within its grace period and was killed" if cut else ""
