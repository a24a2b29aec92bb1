"""Triggers: apply, list, run, pause, remove; and the webhooks that start them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile

from msgspec.structs import replace
from starlette.requests import Request

from dstack.engine.retention.prune import start_tidying
from dstack.engine.triggers.loop import TriggerLoop, schedule
from dstack.errors import ConflictError, DstackError, UnauthorizedError
from dstack.model.api import wire
from dstack.model.api.triggers import ApplyTriggers, HookAnswer, TickView, TriggerChange, TriggerView
from dstack.model.job.status import summary
from dstack.model.job.ticks import Tick, TickState, TriggerRecord, Why
from dstack.model.text.units import rfc3339
from dstack.model.triggers import hooks
from dstack.model.triggers.codes import TriggerCode
from dstack.server.border.values import Limit, reading, sound
from dstack.server.submit import head_of
from dstack.server.triggers import TriggerApplication, check, require_own_trigger

SHOWN = 20
"""How many ticks are shown of one trigger."""
REPORT = 60.0
"""Seconds between two events about refused webhooks of one trigger."""
REFUSED = "the webhook's signature does not fit"


@dataclass
class TriggerRoutes:
    loop: TriggerLoop
    refused: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = self.loop.context
        self.store = self.loop.context.store

    def all(self) -> list[TriggerView]:
        return [self.view(record, 1) for record in self.store.triggers.all()]

    def one(self, name: str, limit: Limit = SHOWN) -> TriggerView:
        record = self.store.triggers.require(name)
        return replace(
            self.view(record, 1), ticks=[self.tick_view(tick) for tick in self.store.triggers.ticks(name, limit)]
        )

    async def apply(self, request: Request) -> list[TriggerChange]:
        with NamedTemporaryFile(dir=self.context.layout.incoming, suffix=".pack") as pack:
            line = await head_of(request.stream(), pack, "the triggers can't be read")
            with reading("the triggers can't be read"):
                wish = sound(wire.decode(line, ApplyTriggers))
            check(wish)
            application = TriggerApplication(self.store, wish)
            if wish.dry_run:
                return application.changes
            if wish.snapshot:
                mirror = self.context.mirror(wish.repo)
                await asyncio.to_thread(mirror.receive, wish.snapshot, Path(pack.name))
            application = TriggerApplication(self.store, wish)  # others may have come meanwhile
            application.apply()
        for change in application.changes:
            self.loop.refresh(change.name)
        start_tidying(self.context, wish.repo)
        return application.changes

    def remove(self, name: str) -> None:
        require_own_trigger(self.store.triggers.require(name))
        self.store.triggers.remove(name)
        self.loop.refresh(name)

    def run(self, name: str) -> TickView:
        require_own_trigger(self.store.triggers.require(name))
        return self.tick_view(self.loop.run_now(name))

    def pause(self, name: str) -> TriggerView:
        record = self.store.triggers.require(name)
        require_own_trigger(record)
        if record.paused is None:
            self.store.triggers.pause(name, Why(TriggerCode.BY_HAND, "paused by hand"))
        self.loop.refresh(name)
        return self.view(self.store.triggers.require(name), 1)

    def resume(self, name: str) -> TriggerView:
        """Let it start runs again, from now on."""
        record = self.store.triggers.require(name)
        require_own_trigger(record)
        if record.paused is None:
            raise ConflictError(f"trigger '{name}' is not paused", hint=f"dstack triggers show {name}")
        changes = {"paused": None, "failures": 0, "position": time.time()}
        self.store.triggers.change(name, "trigger.resumed", **changes)
        self.loop.refresh(name)
        return self.view(self.store.triggers.require(name), 1)

    async def hook(self, request: Request, name: str) -> HookAnswer:
        """Take in a webhook. Whether the trigger exists and has a secret is told to nobody who does not know it."""
        record = self.store.triggers.get(name)
        headers = {key.lower(): value for key, value in request.headers.items()}
        body = await request.body()
        push = record.definition.push if record else None
        if record is None or push is None or not self.signed(push.secret, headers, body):
            if record and time.monotonic() - self.refused.get(name, -REPORT) >= REPORT:
                self.refused[name] = time.monotonic()
                self.store.triggers.refused(name, REFUSED)
            hint = "the secret of the webhook and the one that the trigger's `push.secret` names must be the same"
            raise UnauthorizedError(REFUSED, hint=hint)
        with reading("the webhook can't be read"):
            found = hooks.pushed(headers, body)
        if found is None or found.ref != f"refs/heads/{push.branch}" or not found.after.strip("0"):
            return HookAnswer(accepted=False, why=f"it is not about a push to {push.branch}")
        if record.paused:
            return HookAnswer(accepted=False, why="the trigger is paused")
        before = found.before if found.before.strip("0") else ""
        with self.store.database.transaction():
            if not self.store.triggers.new_delivery(name, hooks.delivery(headers, body)):
                raise ConflictError("this webhook arrived before")
            accepted = self.loop.pushed(record, found.after, before)
        return HookAnswer(accepted=accepted, why=None if accepted else f"{found.after[:12]} was seen before")

    def signed(self, secret: str | None, headers: dict[str, str], body: bytes) -> bool:
        try:
            value = self.store.secrets.require(secret) if secret else ""
        except DstackError:
            value = ""
        return bool(value) and hooks.authentic(headers, body, value, time.time())

    def view(self, record: TriggerRecord, count: int) -> TriggerView:
        definition, reason = record.definition, record.paused or record.trouble
        last = self.store.triggers.ticks(record.name, count)
        branch = definition.branch
        return TriggerView(
            name=record.name,
            workflow=definition.workflow,
            state="paused" if record.paused else "active",
            reason=reason.text if reason else None,
            reason_code=reason.code if reason else None,
            owner=record.owner,
            cron=definition.cron,
            timezone=record.timezone if definition.cron else None,
            next=self.next(record),
            push=definition.push.branch if definition.push else None,
            code=f"branch {branch}" if branch else "snapshot",
            overlap=definition.overlap,
            missed=definition.missed,
            deadline=definition.deadline,
            max_failures=definition.max_failures,
            failures=record.failures,
            variables=definition.variables,
            source=record.source,
            url=record.remote.url if record.remote else None,
            applied_at=record.applied_at,
            last=self.tick_view(last[0]) if last else None,
        )

    def next(self, record: TriggerRecord) -> str | None:
        if record.paused or not record.definition.cron:
            return None
        moment = next(schedule(record.definition.cron, record.timezone).after(max(record.position, time.time())), None)
        return rfc3339(moment) if moment else None

    def tick_view(self, tick: Tick) -> TickView:
        result = tick.result or tick.state.value
        if tick.state is TickState.SUBMITTED and tick.run:
            jobs = self.store.jobs.of(tick.run)
            result = summary([job.status for job in jobs]).value if jobs else result
        why = tick.why
        return TickView(
            at=tick.at,
            result=result,
            run=tick.run,
            commit=tick.commit,
            why=why.text if why else None,
            why_code=why.code if why else None,
        )
