"""The event log: every change of state, written in the transaction that makes it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from dstack.model.api.events import EventView
from dstack.model.job.status import FINISHED
from dstack.model.text.units import rfc3339
from dstack.store.database import Database, Table, encoded

SERVER = "server"
"""The actor of what nobody asked for."""
DELETED = "run.deleted"
"""The only event that outlives its run."""

_actor: ContextVar[str] = ContextVar("actor", default=SERVER)


@contextmanager
def acting(actor: str) -> Iterator[None]:
    """Make `actor` the one who asked for the changes inside. Tasks that start inside inherit it."""
    token = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(token)


def current_actor() -> str:
    """Return who asked for the changes that are made now."""
    return _actor.get()


class EventLog(Table):
    """The events, oldest first. Only the store's tables add to it, so that no caller can forget one. The newest event
    stays even if it is old: SQLite would give its id to the next one."""

    def add(
        self,
        kind: str,
        *,
        actor: str | None = None,
        run: str | None = None,
        job: str | None = None,
        runner: str | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Record an event of the transaction in progress."""
        assert self.database.conn.in_transaction, f"{kind} is recorded without the change itself"
        self.database.execute(
            "INSERT INTO events (time, actor, kind, run, job, runner, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (rfc3339(time.time()), actor or _actor.get(), kind, run, job, runner, encoded(data or {})),
        )
        self.database.changed.update({"", run or ""})

    def select(self, limit: int = -1, *, after: int = 0, since: str | None = None, **wanted: str) -> list[EventView]:
        """Return the first `limit` events with a higher id than `after`: from the time `since` (RFC 3339) on, of a
        `run`, a `job` or a `runner`."""
        sql = f"SELECT * FROM events WHERE id > ? AND time >= ? AND {_conditions(wanted)} ORDER BY id LIMIT ?"
        rows = self.database.rows(sql, after, since or "", *wanted.values(), limit)
        return _events(rows)

    def newest(self, limit: int, *, before: int | None = None, **wanted: str) -> list[EventView]:
        """Return the newest `limit` events with a lower id than `before`, newest first: all, or those of a `run`, a
        `job` or a `runner`."""
        sql = f"SELECT * FROM events WHERE id < ? AND {_conditions(wanted)} ORDER BY id DESC LIMIT ?"
        return _events(self.database.rows(sql, 2**53 if before is None else before, *wanted.values(), limit))

    def ended_last(self, limit: int) -> list[str]:
        """Return the runs with the newest ends of jobs, among the last few thousand events."""
        newest = "SELECT id, run, kind FROM events ORDER BY id DESC LIMIT 3000"
        ends = ", ".join(f"'job.{status.value}'" for status in FINISHED)
        sql = f"SELECT run FROM ({newest}) WHERE kind IN ({ends}) GROUP BY run ORDER BY max(id) DESC LIMIT ?"
        return self.database.column(sql, limit)

    def before_newest(self, count: int, **wanted: str) -> int:
        """Return the id before the newest `count` events of a run, job or runner; 0 if there are not more."""
        sql = f"SELECT id FROM events WHERE {_conditions(wanted)} ORDER BY id DESC LIMIT 1 OFFSET ?"
        return self.database.value(sql, *wanted.values(), count) or 0

    @property
    def last(self) -> int:
        """The id of the newest event; 0 if there is none."""
        return self.database.value("SELECT max(id) FROM events") or 0

    def deleted(self, run: str) -> bool:
        """Whether a run with this name was deleted."""
        return self.database.value("SELECT 1 FROM events WHERE run = ? AND kind = ?", run, DELETED) is not None

    def forget(self, run: str) -> None:
        """Forget the events of a run that was removed, except that it was deleted."""
        self.database.table("events").delete_where("run = ? AND kind != ? AND id < ?", [run, DELETED, self.last])

    def trim(self, before: str, most: int) -> None:
        """Forget events from before a time (RFC 3339), and the oldest of more than `most`."""
        last = self.last
        self.database.table("events").delete_where("(time < ? AND id < ?) OR id <= ?", [before, last, last - most])


def _events(rows: Iterable[Any]) -> list[EventView]:
    return [EventView(**{**row, "data": json.loads(row["data"])}) for row in rows]


def _conditions(wanted: Iterable[str]) -> str:
    return " AND ".join(f"{column} = ?" for column in wanted) or "TRUE"


class RecordedTable(Table):
    """A table whose changes are events."""

    def __init__(self, database: Database, events: EventLog) -> None:
        super().__init__(database)
        self.events = events
