"""Whose artifacts are still on the machine where they were made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dstack.store.database import Database


@dataclass(frozen=True)
class KeptArtifacts:
    """The artifacts of a job's attempt on a runner, since when (RFC 3339)."""

    job: str
    attempt: str
    runner: str
    since: str


class Kept:
    """A belief, not a promise: a machine is asked before they are used, and forgotten what it does not have."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, kept: KeptArtifacts) -> None:
        """They are there."""
        values = (kept.job, kept.attempt, kept.runner, kept.since)
        self.database.execute("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?)", *values)

    def get(self, job: str) -> KeptArtifacts | None:
        """Those of a job."""
        row = self.database.row("SELECT * FROM kept WHERE job = ?", job)
        return KeptArtifacts(row["job"], row["attempt"], row["runner"], row["since"]) if row else None

    def of(self, runner: str) -> list[KeptArtifacts]:
        """Those on a runner, the oldest first."""
        rows = self.database.rows("SELECT * FROM kept WHERE runner = ? ORDER BY since", runner)
        return [KeptArtifacts(row["job"], row["attempt"], row["runner"], row["since"]) for row in rows]

    def overdue(self, runner: str, before: str, most: int) -> list[str]:
        """The attempts on a runner that are there since before a time (RFC 3339), are older than the newest `most`, or
        belong to a run that was deleted: some of them, the oldest first."""
        rows = self.database.rows(
            "SELECT attempt FROM kept LEFT JOIN jobs ON jobs.id = kept.job WHERE kept.runner = ?1 AND"
            " (since < ?2 OR jobs.id IS NULL OR jobs.run IN (SELECT name FROM hidden_runs)"
            " OR since < (SELECT since FROM kept WHERE runner = ?1 ORDER BY since DESC LIMIT 1 OFFSET ?3))"
            " ORDER BY since LIMIT 100",
            runner,
            before,
            most - 1,
        )
        return [row["attempt"] for row in rows]

    def remove(self, attempts: Iterable[str]) -> None:
        """They are gone."""
        with self.database.transaction():
            for attempt in attempts:
                self.database.execute("DELETE FROM kept WHERE attempt = ?", attempt)
