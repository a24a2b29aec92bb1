"""A step of the database: the reasons of jobs, sentences so far, become a code and a text."""

from __future__ import annotations

import json
from typing import Any

import sqlite_utils

PREEMPTED = "preempted by "
"""What the field `preempted` began with, before the run that the job gives way to."""


def structure_reasons(database: sqlite_utils.Database) -> None:
    rows = database.execute("SELECT number, data FROM jobs").fetchall()
    changed = ((json.dumps(structured(json.loads(data))), number) for number, data in rows)
    database.conn.executemany("UPDATE jobs SET data = ? WHERE number = ?", changed)


def structured(job: dict[str, Any]) -> dict[str, Any]:
    """Return a job's record with structured reasons. The code of a reason recorded earlier is unknown."""
    end, ending, preempted = (job.pop(name, None) for name in ("end", "ending", "preempted"))
    return {
        **job,
        "reason": reason(job.get("reason")),
        "final_status": end,
        "final_reason": reason(ending),
        "preempted_by": preempted.removeprefix(PREEMPTED) if preempted else None,
        "history": [{**attempt, "reason": reason(attempt["reason"])} for attempt in job.get("history", ())],
    }


def reason(text: str | None) -> dict[str, str | None] | None:
    return {"code": None, "text": text} if text else None
