"""Adds up what jobs used, in SQL: over a connection of its own and in a thread, so that nothing waits for it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from dstack.model.api.usage import UsageKey, UsageView

PART = "max(0, julianday(min(ended, :now)) - julianday(max(started, :since))) * 24"
"""The hours of an attempt since then."""
CPUS = "coalesce(cast(json_extract(jobs.data, '$.definition.resources.cpu') AS REAL), 1)"
PLACED = "coalesce(json_extract(jobs.data, '$.placed_at'), json_extract(jobs.data, '$.finished_at'), :now)"
CHOSEN = (
    "jobs JOIN runs ON runs.name = jobs.run {more}"
    " WHERE (json_extract(jobs.data, '$.finished_at') >= :since OR json_extract(jobs.data, '$.finished_at') IS NULL)"
)
ATTEMPTS = f"""
SELECT jobs.id AS job, runs.user AS user, jobs.workflow AS workflow, json_extract(jobs.data, '$.runner') AS runner,
    json_array_length(jobs.data, '$.gpus') AS gpus, {CPUS} AS cpus,
    json_extract(jobs.data, '$.started_at') AS started,
    coalesce(json_extract(jobs.data, '$.finished_at'), :now) AS ended,
    CASE WHEN json_array_length(jobs.data, '$.history') > 0 THEN 0 ELSE
        max(0, julianday({PLACED}) - julianday(json_extract(jobs.data, '$.submitted_at'))) * 24 END AS waited
FROM {CHOSEN.format(more="")} AND json_extract(jobs.data, '$.cached_from') IS NULL
UNION ALL
SELECT jobs.id, runs.user, jobs.workflow, json_extract(each.value, '$.runner'),
    json_array_length(each.value, '$.gpus'), {CPUS},
    json_extract(each.value, '$.started_at'), json_extract(each.value, '$.finished_at'), 0
FROM {CHOSEN.format(more=", json_each(jobs.data, '$.history') AS each")}
"""
COLUMNS = {
    "user": "user",
    "workflow": "workflow",
    "runner": "runner",
    "week": "date(started, 'weekday 0', '-6 days')",
}


def usage(path: Path, since: str, now: str, by: Sequence[UsageKey]) -> list[UsageView]:
    """Return the use between two times (RFC 3339), the most GPU-hours first. `path` is the database's."""
    keys = "".join(f"{COLUMNS[key]} AS {key}, " for key in by)
    groups = f"GROUP BY {', '.join(str(number + 1) for number in range(len(by)))}" if by else ""
    sql = f"""
        SELECT {keys} count(DISTINCT job) AS jobs, count(started) AS attempts,
            total(gpus * {PART}) AS gpu_hours, total(cpus * {PART}) AS cpu_hours, total(waited) AS wait_hours
        FROM ({ATTEMPTS}) WHERE started IS NOT NULL OR waited > 0 {groups}
        ORDER BY gpu_hours DESC, cpu_hours DESC
    """
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute(sql, {"since": since, "now": now}).fetchall()
    return [UsageView(**rounded(dict(row))) for row in rows if row["jobs"]]


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in row.items()}
