"""Notices what is due: scheduled times, and new commits of remotes that are polled."""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import lru_cache, partial

from anyio import move_on_after
from msgspec.structs import replace

from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.supervisor import Work
from dstack.engine.triggers.ticks import MANUAL, Ticks, why_of
from dstack.errors import DstackError
from dstack.mirror.remote import end_all
from dstack.model.job.ticks import Tick, TickState, TriggerRecord, Why
from dstack.model.text.units import rfc3339, span
from dstack.model.triggers.codes import TriggerCode
from dstack.model.triggers.cron import Cron
from dstack.model.triggers.decide import JUMP, due

LONGEST = 5.0
"""Seconds between two looks: a clock that was set is noticed within them."""
SOON = 1.0
"""Seconds between two looks while runs are to be followed."""
JUMPED = 2.0
"""Seconds by which the time of day and the clock since the boot have to part before all is computed again."""
NEVER = float("inf")


@lru_cache(4096)
def schedule(text: str, zone: str) -> Cron:
    """Return the schedule; most triggers of a server share a few."""
    return Cron(text, zone)


class TriggerLoop:
    """Keeps when each trigger is due next (time of day, seconds), and when its remote is asked next (monotonic)."""

    def __init__(self, context: Context, engine: Engine) -> None:
        self.context = context
        self.store = context.store
        self.ticks = Ticks(context, engine)
        self.next: dict[str, float] = {}
        self.polls: dict[str, float] = {}
        self.busy: set[str] = set()
        self.wake = asyncio.Event()
        self.apart = time.time() - time.monotonic()

    async def run(self) -> None:
        """Look again and again."""
        self.refresh()
        while True:
            self.wake.clear()
            self.look(time.time())
            with move_on_after(self.pause()):
                await self.wake.wait()

    def close(self) -> None:
        """End what is being fetched: it is done again after the next start."""
        self.ticks.pool.shutdown(wait=False, cancel_futures=True)
        end_all()

    def pause(self) -> float:
        """Seconds until the next look."""
        soonest = min(self.next.values(), default=NEVER) - time.time()
        polled = min(self.polls.values(), default=NEVER) - time.monotonic()
        followed = SOON if self.store.triggers.open_ticks() else LONGEST
        return max(0.05, min(soonest, polled, followed))

    def look(self, now: float) -> None:
        """Record what is due, and start what follows from it."""
        apart = now - time.monotonic()
        if abs(apart - self.apart) > JUMPED:
            self.apart = apart
            self.refresh()
        for name in [name for name, moment in self.next.items() if moment <= now]:
            self.tick(name, now)
        self.ticks.note_ends()
        waiting = (tick for tick in self.store.triggers.open_ticks() if tick.state is not TickState.SUBMITTED)
        for name in dict.fromkeys(tick.trigger for tick in waiting):
            if self.ticks.ready(name):
                self.start(f"trigger {name}", partial(self.ticks.drive, name))
        for name in [name for name, moment in self.polls.items() if moment <= time.monotonic()]:
            self.polls[name] = time.monotonic() + self.every(name)
            self.start(f"polling for trigger {name}", partial(self.poll, name))

    def start(self, task: str, work: Work) -> None:
        """Do the work in the background, unless it is in progress. After a failure, it rests before the next try."""
        if task in self.busy or self.context.tasks.resting(task):
            return
        self.busy.add(task)

        async def worked() -> None:
            try:
                await work()
            finally:
                self.busy.discard(task)
                self.wake.set()

        self.context.tasks.start(task, worked, once=True)

    def refresh(self, name: str | None = None) -> None:
        """Compute again when triggers are due: one, or all."""
        names = {name} if name else {*self.next, *self.polls, *(record.name for record in self.store.triggers.all())}
        for each in names:
            self.next.pop(each, None)
            self.polls.pop(each, None)
            record = self.store.triggers.get(each)
            if record and not record.paused:
                self.plan(record)
        self.wake.set()

    def plan(self, record: TriggerRecord) -> None:
        if record.definition.push:
            self.polls[record.name] = time.monotonic()
        if record.definition.cron:
            set_back = record.position > time.time() + JUMP
            upcoming = schedule(record.definition.cron, record.timezone).after(record.position)
            self.next[record.name] = 0.0 if set_back else next(upcoming, NEVER)

    def tick(self, name: str, now: float) -> None:
        """Record the ticks of a trigger that are due, and how far the schedule is decided, in one transaction."""
        record = self.store.triggers.get(name)
        if record is None or record.paused or record.definition.cron is None:
            self.next.pop(name, None)
            return
        definition, cron = record.definition, schedule(record.definition.cron or "", record.timezone)
        deadline = span(definition.deadline) if definition.deadline else None
        found = due(cron, record.position, now, definition.missed, deadline)
        with self.store.database.transaction():
            if found.skipped is not None:
                why = Why(TriggerCode.MISSED, "the server was not running at that time")
                at = rfc3339(found.skipped)
                self.store.triggers.add_tick(Tick(trigger=name, key=at, at=at, state=TickState.SKIPPED, why=why))
            for moment in found.times:
                at = rfc3339(moment)
                made_up = definition.missed == "all" and len(found.times) > 1
                self.store.triggers.add_tick(Tick(trigger=name, key=at, at=at, made_up=made_up))
            if found.position != record.position:
                self.store.triggers.change(name, position=found.position)
        self.next[name] = next(cron.after(found.position), NEVER)

    def every(self, name: str) -> float:
        record = self.store.triggers.get(name)
        return span(record.definition.push.every) if record and record.definition.push else NEVER

    async def poll(self, name: str) -> None:
        """Ask the remote for the newest commit. The first answer is where a trigger begins."""
        record = self.store.triggers.get(name)
        if record is None or record.paused or record.definition.push is None:
            return
        try:
            remote = self.ticks.remote(record)
            loop = asyncio.get_running_loop()
            head = await loop.run_in_executor(self.ticks.pool, remote.head, record.definition.push.branch)
        except DstackError as error:
            self.unreachable(record, why_of(error))
            return
        self.pushed(record, head, None)

    def pushed(self, asked: TriggerRecord, commit: str, before: str | None) -> bool:
        """Record that the branch is at this commit; return whether that is new. `before` is the one before the push,
        None for the one that was seen last."""
        with self.store.database.transaction():
            record = self.store.triggers.get(asked.name)
            if record is None or record.uid != asked.uid:
                return False
            new = commit != record.seen and (record.seen is not None or before is not None)
            if new:
                key, at = f"push {commit}", rfc3339(time.time())
                tick = Tick(trigger=record.name, key=key, at=at, commit=commit, before=before or record.seen)
                new = self.store.triggers.add_tick(tick)
            if commit != record.seen or record.trouble:
                self.store.triggers.change(record.name, seen=commit, trouble=None)
        if new:
            self.wake.set()
        return new

    def unreachable(self, asked: TriggerRecord, why: Why) -> None:
        """Record, once, why the remote can't be asked."""
        record = self.store.triggers.get(asked.name)
        if record and record.uid == asked.uid and (record.trouble is None or record.trouble.code != why.code):
            changed = replace(record, trouble=why)
            self.store.triggers.put(changed, "trigger.unreachable", code=why.code, reason=why.text)

    def run_now(self, name: str) -> Tick:
        """Record a tick that a person asks for."""
        at = rfc3339(time.time())
        tick = Tick(trigger=name, key=f"{MANUAL}{at} {secrets.token_hex(4)}", at=at)
        self.store.triggers.add_tick(tick)
        self.wake.set()
        return tick
