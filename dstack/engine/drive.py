"""The life of one job, from its placement to its end."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from typing import Any, TypeVar

from msgspec.structs import fields

from dstack.commands.command import Command, Stdin
from dstack.commands.follow import follow, read_log
from dstack.commands.launch import Launched, launch, pull
from dstack.commands.leave import discard
from dstack.commands.observe import observe
from dstack.commands.place import Place
from dstack.commands.stop import stop, warn
from dstack.decide import Decision, Recorded, decide
from dstack.engine.collect import Collector
from dstack.engine.context import Context
from dstack.engine.gather import gathered, reached
from dstack.engine.order import order
from dstack.engine.ship import launch_with_code, ship
from dstack.errors import CommandError, DstackError, HostError, HostUnreachableError, StorageError
from dstack.hosts.host import Host, ask
from dstack.model.job import Attempt, Ends, Job
from dstack.model.paths import attempt_id
from dstack.model.quantities import span, span_words
from dstack.model.runner import Runner
from dstack.model.status import Status
from dstack.model.times import rfc3339, seconds

SETTLING = 20
"""How often a container that failed is looked at again, until Docker knows why."""
SETTLES = 0.25
"""Seconds between two such looks."""
LONGEST_PAUSE = 30.0
"""Seconds between two tries to reach a host."""
HOST_ANSWER = 120.0
"""Seconds for a short question to a host."""

LAUNCH_TAKES = 60.0
"""Seconds after which a container that was made and not started won't be."""
LOOK_AGAIN = 1.0
"""Seconds between two looks at a container that has not ended though its log has, or is about to start."""

DISCARDING = 300.0
"""Seconds for removing what an attempt left."""

ATTEMPTS_OWN = (
    *("status", "reason", "exit_code", "runner", "gpus", "image_digest", "launching", "launch", "end"),
    *("unreachable_since", "placed_at", "expired", "warned", "cause", "started_at"),
)
"""What a new attempt of a job begins without."""

NEW = {field.name: field.default for field in fields(Job)}

T = TypeVar("T")

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
        await self.pause(job, trouble)

    async def pause(self, job: Job, trouble: DstackError) -> None:
        """Say what is wrong, and wait for longer each time."""
        unreachable = isinstance(trouble, HostUnreachableError)
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
        except HostError as unknown:
            await self.pause(self.job, unknown)
            return
        if outcome.outcome != "fenced":
            self.change(status=Status.RUNNING)
            return
        self.change(cause="error")
        await self.close(Status.FAILED, exit_code=Ends.DSTACK, reason=trouble.message + hint)

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
        needed = await self.context.dependencies(job)
        await reached(self.context, job, self.runner)
        there = await gathered(self.context, job, self.runner, needed)
        ordered = order(self.context, job, self.runner, artifacts=bool(needed), gathered=there)
        given: Stdin = b"" if there else self.context.tar(needed)
        command = launch(self.place, ordered, given)
        launched = await launch_with_code(
            self.context, snapshot, self.runner, lambda pack: launch(self.place, ordered, given, pack)
        )
        if launched.outcome == "need-code":
            await ship(self.context, snapshot, self.runner, launched.has)
            launched = await ask(self.host, command)
        if launched.outcome == "need-image":
            launched = await self.pulled(job, command)
        return launched

    async def pulled(self, job: Job, command: Command[Launched]) -> Launched:
        """Launch once the host has the image. It is pulled once, however many jobs there wait for it."""
        self.change(reason=f"pulling {job.image} on {job.runner}")
        async with self.context.pulling[self.runner.name, job.image]:
            launched = await ask(self.host, command)
            if launched.outcome == "need-image":
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
        duty = asyncio.create_task(self.halt() if self.job.stop else self.limit())
        try:
            decision = await self.until_ended()
            if self.job.stop or self.job.expired:
                await duty
        finally:
            duty.cancel()
        await self.drain()
        self.ended(decision)

    async def until_ended(self) -> Decision:
        """Follow the log; return what ended the job. Raises HostUnreachableError while that can't be known."""
        waiting_since, looks = None, 0
        while True:
            await self.follow()
            waited = waiting_since is not None and time.monotonic() - waiting_since > LAUNCH_TAKES
            recorded = Recorded(launch=self.job.launch, stop=self.job.stop is not None, waited=waited)
            observed = await ask(self.host, observe(self.place, self.attempt), timeout=HOST_ANSWER)
            if observed.unsettled and looks < SETTLING:
                looks += 1
                await asyncio.sleep(SETTLES)
                continue
            decision = decide(recorded, observed)
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
        offset = self.store.logs.size(self.id) - self.job.log_start
        async for data in self.host.stream(follow(self.place, self.attempt, offset)):
            self.heard(data)

    async def drain(self) -> None:
        """Read the rest of the log. Its end is known: the job has ended."""
        offset = self.store.logs.size(self.id) - self.job.log_start
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
        grace = 0 if self.job.stop == "abort" else self.grace
        await ask(self.host, stop(self.place, self.attempt, grace), timeout=grace + HOST_ANSWER)

    @property
    def grace(self) -> int:
        """Seconds between SIGTERM and SIGKILL."""
        return math.ceil(span(self.job.definition.stop_grace))

    async def limit(self) -> None:
        """Warn the container before its time is over, and end it when it is."""
        job = self.job
        if job.definition.max_duration is None or job.started_at is None:
            return
        ends = seconds(job.started_at) + span(job.definition.max_duration)
        warning = job.definition.signal
        if warning and not job.warned:
            await until(ends - span(warning.before))
            self.change(warned=True)
            await self.insist(warn(self.place, self.attempt, warning.name))
        await until(ends)
        before = self.job.expired
        self.change(expired=True)
        outcome = await self.insist(stop(self.place, self.attempt, self.grace))
        if not before and outcome is not None and outcome.outcome == "ended":
            self.change(expired=False)  # it ended by itself, just before

    async def insist(self, command: Command[T]) -> T | None:
        """Ask until the host answers; None where it refuses."""
        while True:
            try:
                return await ask(self.host, command, timeout=HOST_ANSWER)
            except HostUnreachableError:
                await asyncio.sleep(LOOK_AGAIN)
            except CommandError as refused:
                log.info("job %s: %s", self.id, refused.message)
                return None

    async def withdraw(self) -> None:
        """Stop a job whose container may or may not have been started: the fence decides."""
        if self.job.launching:
            outcome = await ask(self.host, stop(self.place, self.attempt, self.grace), timeout=self.grace + HOST_ANSWER)
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
        elif job.expired:
            limit = span_words(span(job.definition.max_duration or "0"))
            end, code, reason = Status.FAILED, Ends.MAX_DURATION, f"max-duration: it was stopped after {limit}"
        elif decision.lost:
            code = Ends.DSTACK
        changes = {"end": end, "exit_code": code, "reason": reason, "ending": reason, "unreachable_since": None}
        if not job.stop and not job.expired and end is not Status.DONE:
            changes["cause"] = decision.cause or ("lost" if decision.lost else "error")
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
            self.change(cause="error")
            await self.close(Status.FAILED, exit_code=Ends.NO_ARTIFACT, reason=outcome.complaint, outcome=outcome)
        else:
            await self.close(end, exit_code=job.exit_code, reason=job.ending, outcome=outcome)

    async def close(self, status: Status, *, exit_code: int | None, reason: str | None, outcome: Any = None) -> None:
        """End the job, or queue it for its next attempt."""
        job = self.job
        if not again(job, exit_code):
            self.finish(status, exit_code=exit_code, reason=reason, outcome=outcome)
            return
        try:
            await ask(self.host, discard(self.place, self.attempt, job.image), timeout=DISCARDING)
        except DstackError as trouble:
            if job.status is Status.UPLOADING:
                raise
            log.info("job %s: nothing ran, and what it left stays: %s", self.id, trouble.message)
        size = self.store.logs.size(self.id)
        ended = Attempt(
            number=job.attempt,
            status=status,
            exit_code=exit_code,
            reason=reason,
            runner=job.runner,
            gpus=job.gpus,
            started_at=job.started_at,
            finished_at=rfc3339(time.time()),
            log_start=job.log_start,
            log_end=size,
        )
        fresh = {name: NEW[name] for name in ATTEMPTS_OWN}
        self.change(**fresh, attempt=job.attempt + 1, history=(*job.history, ended), log_start=size)

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


async def until(moment: float) -> None:
    """Sleep until then (wall clock, seconds)."""
    await asyncio.sleep(max(0.0, moment - time.time()))


def again(job: Job, exit_code: int | None) -> bool:
    """Whether a job that ended so is to be tried once more."""
    retry = job.definition.retry
    if retry is None or job.cause is None or job.stop or job.attempt >= retry.attempts:
        return False
    causes = {job.cause, str(exit_code)} | ({"error"} if job.cause != "lost" else set())
    return not causes.isdisjoint(retry.on)
