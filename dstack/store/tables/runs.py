"""Runs, in the order of submission; and tags, the names of their results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from dstack.errors import ConflictError, NotFoundError
from dstack.model.api.artifacts import TagView
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Run
from dstack.model.job.status import FINISHED, Status
from dstack.store.database import LAST, encoded, marks
from dstack.store.tables.events import DELETED, RecordedTable

REPO = "json_extract(data, '$.snapshot.repo')"
ENDED = f"status IN ({', '.join(sorted(repr(status.value) for status in FINISHED))})"
SHOWN = "name NOT IN (SELECT name FROM hidden_runs)"
"""SQL for runs that were not deleted."""


class Brief(NamedTuple):
    """A run in short. `number` grows with each run."""

    number: int
    name: str
    repo: str
    workflow: str
    finished: bool


class Runs(RecordedTable):
    """The submitted runs. A run never changes; only its jobs do."""

    def add(self, run: Run) -> None:
        """Record a run. Raises ConflictError if its name is taken."""
        if self.get(run.name):
            raise ConflictError(f"a run named '{run.name}' already exists", hint=f"dstack runs {run.name}")
        with self.database.transaction():
            self.database.execute(
                "INSERT INTO runs (name, workflow, user, data) VALUES (?, ?, ?, ?)",
                (run.name, run.workflow, run.user, encoded(run)),
            )
            self.events.add("run.submitted", actor=run.user, run=run.name, data={"workflow": run.workflow})

    def get(self, name: str) -> Run | None:
        """Return the run with exactly this name, or None."""
        return self.database.record(Run, "SELECT data FROM runs WHERE name = ?", name)

    def matching(self, prefix: str) -> list[str]:
        """Return up to 10 names that start with `prefix`; only the name itself if `prefix` is a complete name."""
        if self.get(prefix) and prefix not in self.hidden():
            return [prefix]
        sql = f"SELECT name FROM runs WHERE name >= ? AND name < ? AND {SHOWN} LIMIT 10"
        return self.database.column(sql, prefix, prefix + LAST)

    def hide(self, name: str) -> None:
        """Mark a run as deleted. What other runs use of it is kept until they are deleted too."""
        with self.database.transaction():
            self.database.table("hidden_runs").upsert({"name": name})
            self.events.add(DELETED, run=name)

    def hidden(self) -> list[str]:
        """Return the names of deleted runs that other runs still use."""
        return self.database.column("SELECT name FROM hidden_runs")

    def remove(self, name: str) -> None:
        """Forget a run that has no jobs left."""
        with self.database.transaction():
            for table in ("runs", "hidden_runs"):
                self.database.table(table).delete_where("name = ?", [name])
            self.events.forget(name)

    def newest(
        self, limit: int, *, workflow: str | None = None, user: str | None = None, status: Status | None = None
    ) -> list[Run]:
        """Return the newest runs, newest first."""
        given = {"workflow": workflow, "user": user, "status": status and status.value}
        wanted = {column: value for column, value in given.items() if value is not None}
        conditions = " AND ".join([*(f"{column} = ?" for column in wanted), SHOWN])
        sql = f"SELECT data FROM runs WHERE {conditions} ORDER BY number DESC LIMIT ?"
        return self.database.records(Run, sql, *wanted.values(), limit)

    def pages(self, size: int = 500) -> Iterator[list[Brief]]:
        """Yield all runs in short, newest first and `size` at a time. Others may write between two pages."""
        sql = (
            f"SELECT number, name, {REPO} AS repo, workflow, {ENDED} AS finished FROM runs"
            f" WHERE number < ? AND {SHOWN} ORDER BY number DESC LIMIT ?"
        )
        last = 2**63 - 1
        while page := [Brief(*row) for row in self.database.rows(sql, last, size)]:
            yield page
            last = page[-1].number

    def several(self, names: Sequence[str]) -> list[Run]:
        """Return the runs with exactly these names, oldest first."""
        sql = f"SELECT data FROM runs WHERE name IN {marks(names)} ORDER BY number"
        return self.database.records(Run, sql, *names)

    def submitted_with(self, key: str) -> Run | None:
        """Return the run that was submitted with this idempotency key, or None."""
        return self.database.record(Run, "SELECT data FROM runs WHERE json_extract(data, '$.once') = ?", key)

    def repos(self, names: Sequence[str]) -> set[str]:
        """Return the repositories of these runs."""
        return set(self.database.column(f"SELECT DISTINCT {REPO} FROM runs WHERE name IN {marks(names)}", *names))

    def snapshots(self, repo: str) -> list[Snapshot]:
        """Return the different snapshots of a repository's runs, without deleted runs."""
        sql = f"SELECT DISTINCT json_extract(data, '$.snapshot') FROM runs WHERE {REPO} = ? AND {SHOWN}"
        return self.database.records(Snapshot, sql, repo)

    def url(self, repo: str) -> str | None:
        """Return the URL of a repository, as it was last known."""
        sql = f"SELECT json_extract(data, '$.snapshot.url') AS url FROM runs WHERE {REPO} = ? AND {SHOWN}"
        url: str | None = self.database.value(f"{sql} AND url > '' ORDER BY number DESC LIMIT 1", repo)
        return url

    def require(self, name: str) -> Run:
        """Return the run with exactly this name. Raises NotFoundError if there is none."""
        run = self.get(name)
        if run is None:
            raise NotFoundError(f"no run '{name}'", hint="dstack runs")
        return run


class Tags(RecordedTable):
    """The tags. Each names one job, whose run can't be removed."""

    def set(self, tag: TagView) -> None:
        """Set a tag. Replaces one with the same name."""
        with self.database.transaction():
            self.database.table("tags").upsert({"name": tag.name, "data": encoded(tag)})
            self.events.add("tag.set", run=tag.run, job=tag.job, data={"name": tag.name})

    def get(self, name: str) -> TagView | None:
        """Return the tag with exactly this name, or None."""
        return self.database.record(TagView, "SELECT data FROM tags WHERE name = ?", name)

    def all(self) -> list[TagView]:
        """Return all tags, sorted by name."""
        return self.database.records(TagView, "SELECT data FROM tags ORDER BY name")

    def delete(self, name: str) -> bool:
        """Delete a tag. Return whether it existed."""
        tag = self.get(name)
        if tag is None:
            return False
        with self.database.transaction():
            self.database.table("tags").delete_where("name = ?", [name])
            self.events.add("tag.deleted", run=tag.run, job=tag.job, data={"name": name})
        return True
