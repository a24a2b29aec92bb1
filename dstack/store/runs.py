"""Runs, newest last."""

from __future__ import annotations

from dstack.errors import ConflictError, NotFoundError
from dstack.model import wire
from dstack.model.job import Run
from dstack.model.snapshot import Snapshot
from dstack.store.database import Database


class Runs:
    """The runs that were submitted. A run never changes: what happens to it happens to its jobs."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, run: Run) -> None:
        """Record a run; raises ConflictError when its name is taken."""
        if self.get(run.name):
            raise ConflictError(f"a run of the name '{run.name}' exists already", hint=f"dstack runs {run.name}")
        self.database.execute(
            "INSERT INTO runs (name, workflow, user, data) VALUES (?, ?, ?, ?)",
            run.name,
            run.workflow,
            run.user,
            wire.encode(run).decode(),
        )

    def get(self, name: str) -> Run | None:
        """The run of exactly that name."""
        row = self.database.row("SELECT data FROM runs WHERE name = ?", name)
        return wire.decode(row["data"].encode(), Run) if row else None

    def matching(self, prefix: str) -> list[str]:
        """The names that begin with `prefix`; only the very name where one is it."""
        if self.get(prefix) and prefix not in self.hidden():
            return [prefix]
        escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        rows = self.database.rows(
            "SELECT name FROM runs WHERE name LIKE ? ESCAPE '\\'"
            " AND name NOT IN (SELECT name FROM hidden_runs) LIMIT 10",
            escaped + "%",
        )
        return [row["name"] for row in rows]

    def hide(self, name: str) -> None:
        """The run was deleted. What others use of it is there until they are gone."""
        self.database.execute("INSERT OR IGNORE INTO hidden_runs VALUES (?)", name)

    def hidden(self) -> list[str]:
        """The names of runs that were deleted and are still used."""
        return [row["name"] for row in self.database.rows("SELECT name FROM hidden_runs")]

    def remove(self, name: str) -> None:
        """Forget a run that has no job any more."""
        with self.database.transaction():
            self.database.execute("DELETE FROM runs WHERE name = ?", name)
            self.database.execute("DELETE FROM hidden_runs WHERE name = ?", name)

    def newest(self, limit: int, *, workflow: str | None = None, user: str | None = None) -> list[Run]:
        """The newest runs, newest first."""
        rows = self.database.rows(
            "SELECT data FROM runs WHERE (?1 IS NULL OR workflow = ?1) AND (?2 IS NULL OR user = ?2)"
            " AND name NOT IN (SELECT name FROM hidden_runs)"
            " ORDER BY number DESC LIMIT ?3",
            workflow,
            user,
            limit,
        )
        return [wire.decode(row["data"].encode(), Run) for row in rows]

    def submitted_with(self, key: str) -> Run | None:
        """The run that was submitted with this idempotency key."""
        row = self.database.row("SELECT data FROM runs WHERE json_extract(data, '$.once') = ?", key)
        return wire.decode(row["data"].encode(), Run) if row else None

    def snapshots(self, repo: str) -> list[Snapshot]:
        """The code of all runs of a repository that were not deleted."""
        rows = self.database.rows(
            "SELECT data FROM runs WHERE json_extract(data, '$.snapshot.repo') = ?"
            " AND name NOT IN (SELECT name FROM hidden_runs)",
            repo,
        )
        return [wire.decode(row["data"].encode(), Run).snapshot for row in rows]

    def require(self, name: str) -> Run:
        """The run of exactly that name, or NotFoundError."""
        run = self.get(name)
        if run is None:
            raise NotFoundError(f"no run '{name}'", hint="dstack runs")
        return run
