"""The life of one job, from its placement to its end."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

from dstack.commands.follow import follow, read_log
from dstack.commands.launch import Launched, launch, pull
from dstack.commands.observe import observe
from dstack.commands.place import Place
from dstack.commands.stop import stop
from dstack.decide import Decision, Recorded, decide
from dstack.engine.collect import Collector
from dstack.engine.context import Context
from dstack.engine.order import order
from dstack.engine.ship import launch_with_code, ship
from dstack.errors import DstackError, HostError, HostUnreachableError, StorageError
from dstack.hosts.host import Host, ask
from dstack.model.job import Ends, Job
from dstack.model.paths import attempt_id
from dstack.model.runner import Runner
from dstack.model.status import Status
from dstack.model.times import rfc3339

GRACE = 30
"""Seconds between SIGTERM and SIGKILL."""
LONGEST_PAUSE = 30.0
"""Seconds between two tries to reach a host."""
HOST_ANSWER = 120.0
"""Seconds for a short question to a host."""

LAUNCH_TAKES = 60.0
"""Seconds after which a container that was made and not started won't be."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at a container that has not ended though its log has, or is about to start."""

log = logging.getLogger("dstack.engine")


class Drive:
    """Takes a job through its states. Every step is committed before it acts and may be repeated: cancelling a drive
    at any point and starting another one for the same job is how a server restarts, and how a stop takes effect."""

    def __init__(self, context: Context, job_id: str) -> None:
        self.context = context
        self.store = context.store
        self.id = job_id
        self.failures = 0

    async def run(self) -> None:
        """Drive the job to its end, or back to the queue."""
        while not self.job.finished and self.job.status is not Status.QUEUED:
            try:
                await self.step(self.job)
                self.failures = 0
            except DstackError as trouble:
                await self.cope(trouble)
            except Exception as bug:
                log.exception("job %s: unexpected error", self.id)
                await self.cope(HostError(f"an error in dstack itself: {bug!r}; the server's log has the details"))

    @property
    def job(self) -> Job:
        """The job as recorded now."""
        return self.store.jobs.require(self.id)

    @property
    def runner(self) -> Runner:
        return self.store.runners.require(self.job.runner or "")

    @property
    def host(self) -> Host:
        return self.context.machines.host(self.runner)

    @property
    def place(self) -> Place:
        return self.context.machines.place(self.runner)

    @property
    def attempt(self) -> str:
        return attempt_id(self.id, self.job.attempt)

    def change(self, **changes: Any) -> Job:
        """Record, and tell who follows."""
        job = self.store.jobs.change(self.id, **changes)
        self.context.bells.ring(job.run)
        return job

    async def step(self, job: Job) -> None:
        """The next thing to do for a job in this state."""
        if job.status is Status.PREPARING:
            await (self.withdraw() if job.stop else self.prepare())
        elif job.status is Status.RUNNING:
            await self.watch()
        elif job.status is Status.UPLOADING:
            await self.collect()

    async def cope(self, trouble: DstackError) -> None:
        """A step failed: end a job that never began, and try everything else again, for as long as it takes."""
        job = self.job
        unreachable = isinstance(trouble, HostUnreachableError)
        if job.status is Status.PREPARING and not job.stop and not unreachable:
            await self.give_up(trouble)
            return
        self.failures += 1
        since = job.unreachable_since or rfc3339(time.time())
        self.change(reason=self.condition(job, trouble, since), unreachable_since=since if unreachable else None)
        pause = min(LONGEST_PAUSE, 0.5 * 2 ** min(self.failures, 10)) * random.uniform(0.75, 1.25)
        log.warning("job %s: %s; next try in %.1f s", self.id, trouble.message, pause)
        await asyncio.sleep(pause)

    def condition(self, job: Job, trouble: DstackError, since: str) -> str:
        """What to tell the user while a step is tried again."""
        if isinstance(trouble, HostUnreachableError):
            return f"{job.runner} has not answered since {since}: {trouble.message}"
        if isinstance(trouble, StorageError):
            return f"the artifacts could not be stored yet: {trouble.message}"
        return trouble.message

    async def give_up(self, trouble: DstackError) -> None:
        """The job can't be launched. Make sure of it on the host before saying so."""
        hint = f"; {trouble.hint}" if trouble.hint else ""
        try:
            outcome = await ask(self.host, stop(self.place, self.attempt, 0), timeout=HOST_ANSWER)
        except DstackError as unknown:
            log.info("job %s: could not fence: %s", self.id, unknown.message)
        else:
            if outcome.outcome != "fenced":
                self.change(status=Status.RUNNING)
                return
        self.finish(Status.FAILED, exit_code=Ends.DSTACK, reason=trouble.message + hint)

    async def prepare(self) -> None:
        """Bring the job to its host and launch it. The intent is committed before anything may run there."""
        first = not self.job.launching
        self.change(launching=True)
        try:
            launched = await self.launched()
        except HostError as trouble:
            if not first or trouble.sent:
                raise
            self.requeue(trouble)
        else:
            self.begun(launched)

    async def launched(self) -> Launched:
        """Launch, after the host has what it lacks of code and image. A job that was begun before is left alone."""
        job = self.job
        snapshot = self.store.runs.require(job.run).snapshot
        ordered, given = order(self.context, job, self.runner), await self.context.dependencies(job)
        command = launch(self.place, ordered, given)
        launched = await launch_with_code(
            self.context, snapshot, self.runner, lambda pack: launch(self.place, ordered, given, pack)
        )
        if launched.outcome == "need-code":
            await ship(self.context, snapshot, self.runner, launched.has)
            launched = await ask(self.host, command)
        if launched.outcome == "need-image":
            self.change(reason=f"pulling {job.image} on {job.runner}")
            await ask(self.host, pull(self.place, job.image))
            launched = await ask(self.host, command)
        return launched

    def requeue(self, trouble: HostError) -> None:
        """The host could not even be asked: place the job anew."""
        reason = f"{self.job.runner}: {trouble.message}"
        self.context.machines.conditions.pop(self.job.runner or "", None)
        self.change(status=Status.QUEUED, launching=False, runner=None, gpus=(), reason=reason)

    def begun(self, launched: Launched) -> None:
        """Record what the launch answered."""
        if launched.outcome not in ("started", "exists"):
            raise HostError(f"the job could not be launched: the host answered '{launched.outcome}'")
        self.change(
            status=Status.RUNNING,
            started_at=self.job.started_at or rfc3339(time.time()),
            launch=launched.launch,
            image_digest=launched.digest,
            reason=None,
            unreachable_since=None,
        )

    async def watch(self) -> None:
        """Follow the log until the container is seen to have ended, passing on the wish to stop."""
        stopping = asyncio.create_task(self.halt()) if self.job.stop else None
        try:
            decision = await self.until_ended()
            if stopping:
                await stopping
        finally:
            if stopping:
                stopping.cancel()
        await self.drain()
        self.ended(decision)

    async def until_ended(self) -> Decision:
        """Follow the log; return what ended the job. Raises HostUnreachableError while that can't be known."""
        waiting_since = None
        while True:
            await self.follow()
            waited = waiting_since is not None and time.monotonic() - waiting_since > LAUNCH_TAKES
            recorded = Recorded(launch=self.job.launch, stop=self.job.stop is not None, waited=waited)
            decision = decide(recorded, await ask(self.host, observe(self.place, self.attempt), timeout=HOST_ANSWER))
            if decision.ended:
                return decision
            if decision.unknown:
                raise HostUnreachableError(decision.reason or "Docker does not answer")
            if decision.launch:
                self.begun(await self.launched())
            waiting_since = None if decision.running else waiting_since or time.monotonic()
            await asyncio.sleep(LOOK_AGAIN)

    async def follow(self) -> None:
        """Append the log's bytes as they come, until the stream ends."""
        offset = self.store.logs.size(self.id)
        async for data in self.host.stream(follow(self.place, self.attempt, offset)):
            self.heard(data)

    async def drain(self) -> None:
        """Read the rest of the log. Its end is known: the job has ended."""
        offset = self.store.logs.size(self.id)
        async for data in self.host.stream(read_log(self.place, self.attempt, offset)):
            self.heard(data)

    def heard(self, data: bytes) -> None:
        job = self.job
        self.store.logs.append(self.id, data)
        if job.unreachable_since:
            self.change(unreachable_since=None, reason=None)
        self.context.bells.ring(job.run)

    async def halt(self) -> None:
        """Tell the container to end."""
        grace = 0 if self.job.stop == "abort" else GRACE
        await ask(self.host, stop(self.place, self.attempt, grace), timeout=grace + HOST_ANSWER)

    async def withdraw(self) -> None:
        """Stop a job whose container may or may not have been started: the fence decides."""
        if self.job.launching:
            outcome = await ask(self.host, stop(self.place, self.attempt, GRACE), timeout=GRACE + HOST_ANSWER)
            if outcome.outcome != "fenced":
                self.change(status=Status.RUNNING, started_at=rfc3339(time.time()))
                return
        self.finish(Status.STOPPED, exit_code=Ends.STOPPED, reason="stopped before it started")

    def ended(self, decision: Decision) -> None:
        """Record how the container ended. What it made is collected next."""
        job = self.job
        code, reason = decision.exit_code, decision.reason
        end = Status.LOST if decision.lost else Status.DONE if code == 0 else Status.FAILED
        if job.stop:
            end, code, reason = Status.STOPPED, Ends.STOPPED, "stopped by dstack stop"
        elif decision.lost:
            code = Ends.DSTACK
        changes = {"end": end, "exit_code": code, "reason": reason, "unreachable_since": None}
        self.change(status=Status.UPLOADING, **changes)

    async def collect(self) -> None:
        """Store what the job made, and end it."""
        job = self.job
        if job.stop == "abort":
            self.finish(Status.STOPPED, exit_code=Ends.STOPPED, reason="aborted; nothing was kept")
            return
        outcome = await Collector(self.context, job, self.runner).run()
        end = job.end or Status.FAILED
        if outcome.complaint and end is Status.DONE:
            self.finish(Status.FAILED, exit_code=Ends.NO_ARTIFACT, reason=outcome.complaint, outcome=outcome)
        else:
            self.finish(end, exit_code=job.exit_code, reason=job.reason, outcome=outcome)

    def finish(self, status: Status, *, exit_code: int | None, reason: str | None, outcome: Any = None) -> None:
        """Record the end."""
        self.change(
            status=status,
            exit_code=exit_code,
            reason=reason,
            finished_at=rfc3339(time.time()),
            unreachable_since=None,
            files=outcome.files if outcome else 0,
            bytes=outcome.bytes if outcome else 0,
        )
