"""The artifacts that are still on the runner where they were made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from dstack.store.database import Database


@dataclass(frozen=True)
class Retained:
    """The artifacts of an attempt, retained on a runner since a time (RFC 3339)."""

    job: str
    attempt: str
    runner: str
    since: str


class RetainedArtifacts:
    """May be outdated: the runner is asked before they are used, and what it no longer has is forgotten."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, kept: Retained) -> None:
        """Record retained artifacts."""
        self.database.table("kept").upsert(asdict(kept))

    def get(self, job: str) -> Retained | None:
        """Return the retained artifacts of a job, or None."""
        row = self.database.row("SELECT * FROM kept WHERE job = ?", job)
        return Retained(**row) if row else None

    def of(self, runner: str) -> list[Retained]:
        """Return the retained artifacts on a runner, oldest first."""
        rows = self.database.table("kept").rows_where("runner = ?", [runner], order_by="since")
        return [Retained(**row) for row in rows]

    def overdue(self, runner: str, before: str, most: int) -> list[str]:
        """Return up to 100 attempts whose artifacts the runner can remove, oldest first: they are from before a time
        (RFC 3339), are not among the newest `most`, or belong to a deleted run."""
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
        """Forget the artifacts of these attempts: they were removed."""
        with self.database.transaction():
            for attempt in attempts:
                self.database.table("kept").delete_where("attempt = ?", [attempt])
