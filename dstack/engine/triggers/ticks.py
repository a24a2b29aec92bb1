"""Turns ticks into runs, each at most once, and notes how the runs ended."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.submission.submit import Submitter
from dstack.engine.triggers.commit import CommitReader, NotWantedError
from dstack.errors import DstackError, ServerTroubleError, UsageError
from dstack.mirror.remote import RemoteRepository
from dstack.model.api.runs import Submission
from dstack.model.job.job import Run
from dstack.model.job.status import Status, summary
from dstack.model.job.ticks import Template, Tick, TickState, TriggerRecord, Why
from dstack.model.triggers.codes import TriggerCode
from dstack.model.triggers.decide import MOST, Act, overlap

FETCHES = 4
"""How many remotes are asked at the same time."""
MANUAL = "manual "
"""How the keys of ticks begin that a person asked for."""
BAD = (Status.FAILED, Status.LOST)


class Ticks:
    """Acts on recorded ticks. All that it knows is in the store: whatever was cut off is done again, and the run's
    idempotency key keeps it from being a second run."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self.store = context.store
        self.context = context
        self.engine = engine
        self.submitter = Submitter(context, engine)
        self.pool = ThreadPoolExecutor(FETCHES, thread_name_prefix="remote")

    async def drive(self, name: str) -> None:
        """Act on what is due of a trigger, in order. Raises ServerTroubleError, after which it is tried again."""
        behind = False
        for tick in self.store.triggers.open_ticks(name):
            if tick.state is not TickState.SUBMITTED:
                behind = not await self.act(tick, behind=behind) or behind
                await asyncio.sleep(0)

    def ready(self, name: str) -> bool:
        """Whether there is something to act on: what waits does so for runs that have not ended."""
        due = self.store.triggers.open_ticks(name, TickState.DUE)
        return bool(due) or (self.store.triggers.waiting(name) > 0 and not self.unfinished(name))

    async def act(self, tick: Tick, *, behind: bool = False) -> bool:
        """Act on a tick; return False if it waits, `behind` others or for a run."""
        record = self.store.triggers.get(tick.trigger)
        if record is None:
            return True
        run = self.store.runs.submitted_with(once(record, tick), record.owner)
        if run is None:
            if self.waits(record, tick, behind=behind):
                return False
            if (why := self.refusal(record, tick)) is None:
                run, why = await self.tried(record, tick)
            if run is None:
                if why:
                    self.store.triggers.change_tick(tick, state=TickState.SKIPPED, why=why)
                return True
        if record.definition.overlap == "replace":
            self.stop_others(record, run)
        commit = run.snapshot.commit
        self.store.triggers.change_tick(tick, state=TickState.SUBMITTED, run=run.name, commit=commit, why=None)
        return True

    async def tried(self, record: TriggerRecord, tick: Tick) -> tuple[Run | None, Why | None]:
        """Return the new run of a tick, or why there is none. A failure is recorded here."""
        try:
            return await self.submit(record, tick), None
        except ServerTroubleError:
            raise
        except NotWantedError as skipped:
            return None, Why(skipped.code, skipped.message)
        except DstackError as error:
            self.failed(tick, why_of(error))
            return None, None

    def refusal(self, record: TriggerRecord, tick: Tick) -> Why | None:
        """Why a tick starts nothing; None if it may."""
        if record.paused and not tick.key.startswith(MANUAL):
            return Why(TriggerCode.PAUSED, "the trigger was paused before its turn came")
        unfinished = self.unfinished(record.name)
        act = overlap(record.definition.overlap, unfinished, made_up=tick.made_up)
        if act is Act.SKIP:
            return Why(TriggerCode.RUNNING, f"{unfinished[0]} has not ended")
        if act is Act.WAIT:
            return Why(TriggerCode.QUEUE_FULL, f"{MOST:,} others wait for {unfinished[0]}")
        return None

    def waits(self, record: TriggerRecord, tick: Tick, *, behind: bool) -> bool:
        """Whether a tick has to wait, which is recorded."""
        unfinished = self.unfinished(record.name)
        act = overlap(record.definition.overlap, unfinished or ["others"] * behind, made_up=tick.made_up)
        paused = record.paused and not tick.key.startswith(MANUAL)
        if act is not Act.WAIT or paused or (tick.state is TickState.DUE and self.full(record)):
            return False
        if tick.state is TickState.DUE:
            text = f"waits for {unfinished[0]}" if unfinished else "waits for the ones before"
            self.store.triggers.change_tick(tick, state=TickState.WAITING, why=Why(TriggerCode.RUNNING, text))
        return True

    def full(self, record: TriggerRecord) -> bool:
        return self.store.triggers.waiting(record.name) >= MOST

    def unfinished(self, name: str) -> list[str]:
        """The unfinished runs of a trigger."""
        runs = [tick.run for tick in self.store.triggers.open_ticks(name, TickState.SUBMITTED) if tick.run]
        return [run for run in runs if not all(job.finished for job in self.store.jobs.of(run))]

    def stop_others(self, record: TriggerRecord, run: Run) -> None:
        for other in self.unfinished(record.name):
            if other != run.name:
                self.engine.stop(self.store.jobs.of(other), abort=False)

    async def submit(self, record: TriggerRecord, tick: Tick) -> Run:
        """Submit the run of a tick, with the code that the trigger names."""
        template = record.template or await self.fetched(record, tick)
        submission = Submission(
            workflow=record.definition.workflow,
            workflows=template.workflows,
            variables=template.variables,
            snapshot=template.snapshot,
            user=record.owner,
            once=once(record, tick),
            trigger=record.name,
        )
        return (await self.submitter.submit(submission)).run

    async def fetched(self, record: TriggerRecord, tick: Tick) -> Template:
        reader = CommitReader(record, tick, self.remote(record), self.context.mirror(record.repo))
        return await asyncio.get_running_loop().run_in_executor(self.pool, reader.read)

    def remote(self, record: TriggerRecord) -> RemoteRepository:
        """The trigger's remote. Raises NotFoundError if the secret with its token is not set."""
        known = record.remote
        if known is None:
            raise UsageError(f"trigger '{record.name}' knows no remote", hint="dstack triggers apply")
        token = self.store.secrets.require(known.token).strip() if known.token else None
        return RemoteRepository(known.url, known.key, token, known.trusted)

    def failed(self, tick: Tick, why: Why) -> None:
        """Record that a tick could not start its run."""
        with self.store.database.transaction():
            self.store.triggers.change_tick(tick, state=TickState.FAILED, why=why)
            self.count(tick.trigger, Status.FAILED)

    def note_ends(self) -> bool:
        """Note the runs that have ended; return whether there were any."""
        ended = False
        for tick in self.store.triggers.open_ticks(state=TickState.SUBMITTED):
            jobs = self.store.jobs.of(tick.run or "")
            status = summary([job.status for job in jobs]) if jobs else None
            if status is None or status.finished:
                ended = True
                with self.store.database.transaction():
                    result = status.value if status else None
                    self.store.triggers.change_tick(tick, state=TickState.ENDED, result=result)
                    self.count(tick.trigger, status)
        return ended

    def count(self, name: str, status: Status | None) -> None:
        """Count the failures in a row, and pause the trigger after as many as it allows."""
        record = self.store.triggers.get(name)
        if record is None or not (status in BAD or status is Status.DONE):
            return
        failures = record.failures + 1 if status in BAD else 0
        if failures != record.failures:
            self.store.triggers.change(name, failures=failures)
        most = record.definition.max_failures
        if most is not None and failures >= most and not record.paused:
            text = f"it failed {failures} times in a row; look why, then type: dstack triggers resume {name}"
            self.store.triggers.pause(name, Why(TriggerCode.MAX_FAILURES, text))


def once(record: TriggerRecord, tick: Tick) -> str:
    """The idempotency key of a tick's run."""
    return f"trigger {record.uid} {tick.key}"


def why_of(error: DstackError) -> Why:
    """What went wrong, and what to do about it."""
    return Why(error.code, f"{error.message} ({error.hint})" if error.hint else error.message)
