"""Tells while the connection to a job's runner is silent, in every phase: the step that waits for it can't."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from dstack.commands.host import Host
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.upload_status import unreachable
from dstack.errors import DstackError
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import time_of_day

GLANCE = 1.0
"""Seconds between two glances at the connection, which send nothing."""


class Silence:
    """Records that the runner has not answered since then, and takes it back when it answers. `before` is the reason
    that the job had."""

    def __init__(self, at: JobOnRunner) -> None:
        self.at = at
        self.host: Host | None = None
        self.told = False
        self.before: Reason | None = None

    async def run(self) -> None:
        """Glance at the connection until cancelled."""
        while True:
            await asyncio.sleep(GLANCE)
            with suppress(DstackError):  # the job or the runner is gone, or the server can't record anything now
                self.glance()

    def glance(self) -> None:
        host = self.host = self.host or self.at.host
        if host.silent == self.told:
            return  # nearly always, so that it costs nothing
        job = self.at.job
        if self.told:
            if job.unreachable_since and job.reason and job.reason.code is ReasonCode.RUNNER_UNREACHABLE:
                self.at.change(reason=self.before, unreachable_since=None)
            self.told = False
        elif not (job.finished or job.unreachable_since) and host.answered is not None:
            since = rfc3339(time_of_day(host.answered))
            self.before = job.reason
            self.at.change(reason=unreachable(job, since, stop=bool(job.stop)), unreachable_since=since)
            self.told = True
