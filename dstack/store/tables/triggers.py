"""Triggers, their ticks, and the webhooks that arrived."""

from __future__ import annotations

import time
from typing import Any

from msgspec import structs

from dstack.errors import NotFoundError
from dstack.model.job.ticks import Tick, TickState, TriggerRecord, Why
from dstack.model.text.units import rfc3339
from dstack.store.database import encoded
from dstack.store.tables.events import RecordedTable

MOST_TICKS = 1000
"""How many ticks of a trigger are kept, besides the open ones."""
MOST_DELIVERIES = 10_000
"""How many ids of webhooks are remembered for each trigger."""
OPEN = "state IN ('due', 'waiting', 'submitted')"
KINDS = {TickState.DUE: "trigger.due", TickState.SUBMITTED: "trigger.ticked"}
"""The events whose names are not those of the states."""


class Triggers(RecordedTable):
    """The triggers by name. A tick is unique by trigger and key, and so starts at most one run."""

    def all(self) -> list[TriggerRecord]:
        """Return all triggers, sorted by name."""
        return self.database.records(TriggerRecord, "SELECT data FROM triggers ORDER BY name")

    def get(self, name: str) -> TriggerRecord | None:
        """Return the trigger with this name, or None."""
        return self.database.record(TriggerRecord, "SELECT data FROM triggers WHERE name = ?", name)

    def require(self, name: str) -> TriggerRecord:
        """Return the trigger with this name. Raises NotFoundError if there is none."""
        record = self.get(name)
        if record is None:
            raise NotFoundError(f"no trigger '{name}'", hint="dstack triggers")
        return record

    @property
    def active(self) -> bool:
        """Whether a trigger may start something."""
        return self.database.value("SELECT 1 FROM triggers WHERE NOT paused LIMIT 1") is not None

    def put(self, record: TriggerRecord, event: str | None = None, **data: Any) -> None:
        """Record a trigger. Replaces one with its name. `event` says what happened to it."""
        with self.database.transaction():
            self.database.execute(
                "INSERT INTO triggers (name, paused, data) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, data = excluded.data",
                (record.name, record.paused is not None, encoded(record)),
            )
            if event:
                self._tell(event, record, **data)

    def change(self, name: str, event: str | None = None, **changes: Any) -> TriggerRecord:
        """Change some fields of a trigger, and return it."""
        changed = structs.replace(self.require(name), **changes)
        self.put(changed, event)
        return changed

    def pause(self, name: str, why: Why) -> TriggerRecord:
        """Let a trigger start nothing until it is resumed."""
        paused = structs.replace(self.require(name), paused=why)
        self.put(paused, "trigger.paused", code=why.code, reason=why.text)
        return paused

    def remove(self, name: str) -> None:
        """Forget a trigger. Raises NotFoundError if there is none."""
        record = self.require(name)
        with self.database.transaction():
            for table, column in (("triggers", "name"), ("ticks", "trigger"), ("deliveries", "trigger")):
                self.database.execute(f'DELETE FROM {table} WHERE "{column}" = ?', (name,))
            self._tell("trigger.removed", record)

    def add_tick(self, tick: Tick) -> bool:
        """Record a tick; return False if the trigger had it before."""
        with self.database.transaction():
            added = self.database.execute(
                'INSERT OR IGNORE INTO ticks ("trigger", key, state, data) VALUES (?, ?, ?, ?)',
                (tick.trigger, tick.key, tick.state.value, encoded(tick)),
            ).rowcount
            if added:
                self._trim(tick.trigger)
                self._told(tick)
        return bool(added)

    def change_tick(self, tick: Tick, **changes: Any) -> Tick:
        """Change some fields of a tick, unless its trigger was removed, and return it."""
        changed = structs.replace(tick, **changes)
        with self.database.transaction():
            known = self.database.execute(
                'UPDATE ticks SET state = ?, data = ? WHERE "trigger" = ? AND key = ?',
                (changed.state.value, encoded(changed), tick.trigger, tick.key),
            ).rowcount
            if known and changed.state is not tick.state:
                self._told(changed)
        return changed

    def open_ticks(self, name: str | None = None, state: TickState | None = None) -> list[Tick]:
        """Return what is not settled, oldest first: of one trigger, in one state."""
        sql = f'SELECT data FROM ticks WHERE {OPEN} AND (?1 IS NULL OR "trigger" = ?1) AND (?2 IS NULL OR state = ?2)'
        return self.database.records(Tick, f"{sql} ORDER BY number", name, state and state.value)

    def waiting(self, name: str) -> int:
        """Return how many ticks of a trigger wait."""
        sql = "SELECT count(*) FROM ticks WHERE state = 'waiting' AND \"trigger\" = ?"
        return int(self.database.value(sql, name))

    def ticks(self, name: str, limit: int) -> list[Tick]:
        """Return the newest ticks of a trigger, newest first."""
        sql = 'SELECT data FROM ticks WHERE "trigger" = ? ORDER BY number DESC LIMIT ?'
        return self.database.records(Tick, sql, name, limit)

    def new_delivery(self, name: str, delivery: str) -> bool:
        """Remember the id of a webhook; return False if it arrived before. The oldest of many are forgotten."""
        with self.database.transaction():
            added = self.database.execute(
                'INSERT OR IGNORE INTO deliveries ("trigger", id, at) VALUES (?, ?, ?)',
                (name, delivery, rfc3339(time.time())),
            ).rowcount
            self.database.execute(
                'DELETE FROM deliveries WHERE "trigger" = ?1 AND number <= (SELECT number FROM deliveries'
                ' WHERE "trigger" = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)',
                (name, MOST_DELIVERIES),
            )
        return bool(added)

    def refused(self, name: str, why: str) -> None:
        """Record that a webhook was refused."""
        with self.database.transaction():
            self._tell("trigger.refused", self.require(name), reason=why)

    def _trim(self, name: str) -> None:
        self.database.execute(
            f'DELETE FROM ticks WHERE "trigger" = ?1 AND NOT {OPEN} AND number <= (SELECT number FROM ticks'
            ' WHERE "trigger" = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)',
            (name, MOST_TICKS),
        )

    def _told(self, tick: Tick) -> None:
        why = {"code": tick.why.code, "reason": tick.why.text} if tick.why else {}
        kind = KINDS.get(tick.state, f"trigger.{tick.state.value}")
        self._tell(kind, self.require(tick.trigger), run=tick.run, at=tick.at, result=tick.result, **why)

    def _tell(self, kind: str, record: TriggerRecord, run: str | None = None, **data: Any) -> None:
        about = {"name": record.name, "workflow": record.definition.workflow, "owner": record.owner}
        self.events.add(kind, run=run, data={**about, **{key: value for key, value in data.items() if value}})
