"""Finds runs by their variables and metrics, however many there are.

It reads the database over a connection of its own, so that it can do so in a thread while the server goes on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Struct

from dstack.errors import UsageError
from dstack.model.metrics.conditions import RunCondition, RunOrder
from dstack.model.metrics.values import number
from dstack.model.text.suggest import did_you_mean
from dstack.store.database import typed

SHOWN = "runs.name NOT IN (SELECT name FROM hidden_runs) AND json_valid(runs.data)"
SECONDS = 5.0
"""How long it waits for another program's lock."""
RECENT = 10_000
"""Names are looked for in so many of the newest runs."""

VARIABLE = "json_extract(runs.data, '$.variables.' || json_quote({0}))"
METRIC = (
    "(SELECT last_value FROM jobs JOIN metric_series ON"
    " metric_series.job = coalesce(json_extract(jobs.data, '$.cached_from'), jobs.id)"
    " WHERE jobs.run = runs.name AND json_valid(jobs.data) AND metric_series.name = {0}"
    " ORDER BY jobs.number DESC LIMIT 1)"
)
VALUE = f"coalesce({VARIABLE}, {METRIC})"
"""What a run has under a name: its variable, or else the last value of its metric. NaN is none."""


class Search(Struct, frozen=True, kw_only=True):
    """What is looked for. `names` have to be known, too: they are shown."""

    workflow: str | None = None
    user: str | None = None
    conditions: tuple[RunCondition, ...] = ()
    order: RunOrder | None = None
    names: tuple[str, ...] = ()
    limit: int


def find(database: Path, search: Search) -> list[str]:
    """Return the names of the runs that fit, sorted, or else the newest first. Raises UsageError for a name that no
    run has as a variable or metric, and ServerTroubleError."""
    uri = f"{database.absolute().as_uri()}?mode=ro"
    with typed(database), closing(sqlite3.connect(uri, uri=True, timeout=SECONDS)) as connection:
        connection.create_function("to_number", 1, to_number, deterministic=True)
        require(connection, search)
        sql, values = query(search)
        return [name for (name,) in connection.execute(sql, values)]


def to_number(value: Any) -> float | None:
    return number(value) if isinstance(value, str) else value


def query(search: Search) -> tuple[str, list[Any]]:
    """Return the SQL of a search with its values."""
    clauses, values = [SHOWN], list[Any]()
    for column, wanted in (("workflow", search.workflow), ("user", search.user)):
        if wanted is not None:
            clauses.append(f"runs.{column} = ?")
            values.append(wanted)
    for each in search.conditions:
        found = VALUE.format("?")
        values += [each.name, each.name]
        clauses.append(f"{found} {each.operator} ?" if each.number is None else f"to_number({found}) {each.operator} ?")
        values.append(each.value if each.number is None else each.number)
    by, value = "number DESC", "NULL"
    if search.order is not None:
        down, value = "DESC" if search.order.descending else "ASC", VALUE.format("?")
        by = f"value IS NULL, to_number(value) IS NULL, to_number(value) {down}, value {down}, number DESC"
        values = [search.order.name] * 2 + values
    rows = f"SELECT runs.name, runs.number, {value} AS value FROM runs WHERE {' AND '.join(clauses)}"
    return f"SELECT name FROM ({rows}) ORDER BY {by} LIMIT ?", [*values, search.limit]


def require(connection: sqlite3.Connection, search: Search) -> None:
    """Raise UsageError for a name that no run has."""
    wanted = [*search.names, *(each.name for each in search.conditions)]
    if search.order is not None:
        wanted.append(search.order.name)
    known = known_names(connection) if wanted else frozenset()
    for name in wanted:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f"no run has a variable or metric '{name}'{near}", hint=_hint(known))


def known_names(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the names of all metrics, and of the newest runs' variables."""
    sql = (
        f"SELECT DISTINCT each.key FROM (SELECT data FROM runs WHERE {SHOWN} ORDER BY number DESC LIMIT {RECENT})"
        " AS newest, json_each(newest.data, '$.variables') AS each UNION SELECT DISTINCT name FROM metric_series"
    )
    return frozenset(name for (name,) in connection.execute(sql))


def _hint(known: Iterable[str]) -> str:
    names: Sequence[str] = sorted(known)
    if not names:
        return "add `metrics: auto` to a workflow, and run it"
    return f"known are {', '.join(names[:10])}{' and more' if len(names) > 10 else ''}"
