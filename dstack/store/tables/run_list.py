"""Pages of a long list of runs: filtered and counted by index, newest first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from dstack.model.job.job import Run
from dstack.model.job.status import SUMMARY, Status
from dstack.store.database import Table
from dstack.store.tables.runs import SHOWN

RECENT = 1000
"""How many of the newest runs tell which workflows and users are worth naming."""


class RunFilter(Struct, frozen=True, kw_only=True):
    """Which runs are wanted. `text` is a part of their name; `names` are the only ones that may be in the list."""

    workflow: str | None = None
    user: str | None = None
    status: Status | None = None
    text: str | None = None
    names: tuple[str, ...] | None = None


class RunList(Table):
    """Reads runs as `Runs` wrote them."""

    def page(self, wanted: RunFilter, limit: int, before: int | None = None) -> list[tuple[int, Run]]:
        """Return the newest runs with a number under `before`, each with its number. The numbers grow with time."""
        where, values = conditions(wanted)
        sql = f"SELECT number FROM runs WHERE {where} AND number < ? ORDER BY number DESC LIMIT ?"
        numbers = self.database.column(sql, *values, 2**53 if before is None else before, limit)
        return [(number, self._run(number)) for number in numbers]

    def _run(self, number: int) -> Run:
        found = self.database.record(Run, "SELECT data FROM runs WHERE number = ?", number)
        assert found is not None
        return found

    def count(self, wanted: RunFilter) -> int:
        """Return how many runs there are."""
        where, values = conditions(wanted)
        count: int = self.database.value(f"SELECT count(*) FROM runs WHERE {where}", *values)
        return count

    def recent(self, column: str) -> list[str]:
        """Return the workflows or the users of the newest runs, sorted."""
        assert column in ("workflow", "user")
        newest = f"SELECT {column} FROM runs ORDER BY number DESC LIMIT {RECENT}"
        return sorted(set(self.database.column(newest)))


def conditions(wanted: RunFilter) -> tuple[str, list[Any]]:
    """Return the SQL for the runs that are wanted, and its values."""
    parts, values = [SHOWN], list[Any]()
    for column, value in (("workflow", wanted.workflow), ("user", wanted.user)):
        if value is not None:
            parts.append(f"{column} = ?")
            values.append(value)
    if wanted.text:
        parts.append("instr(lower(name), lower(?)) > 0")
        values.append(wanted.text)
    if wanted.names is not None:
        parts.append(f"name IN ({', '.join('?' * len(wanted.names))})")
        values += wanted.names
    if wanted.status is not None:
        parts.append(having(wanted.status))
    return " AND ".join(parts), values


def having(status: Status) -> str:
    """Return the SQL for the runs with this status, which is the first in SUMMARY that one of its jobs has."""
    earlier = SUMMARY[: SUMMARY.index(status)]
    parts = [f"name NOT IN ({_with(earlier)})"] if earlier else []
    return " AND ".join(parts if status is SUMMARY[-1] else [*parts, f"name IN ({_with([status])})"])


def _with(statuses: Iterable[Status]) -> str:
    return f"SELECT run FROM jobs WHERE status IN ({', '.join(repr(status.value) for status in statuses)})"
