"""Jobs: one row each, changed only by allowed transitions; and their cache keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from dstack.errors import NotFoundError
from dstack.model.job.changes import details, happened
from dstack.model.job.job import Job
from dstack.model.job.status import FINISHED, Status, may_follow
from dstack.store.database import LAST, Database, Table, encoded, marks
from dstack.store.tables.events import EventLog, RecordedTable


def among(statuses: Iterable[Status]) -> str:
    """Return SQL for jobs with one of these states."""
    return f"status IN ({', '.join(sorted(repr(status.value) for status in statuses))})"


RUNNER = "json_extract(data, '$.runner')"
SOURCE = "json_extract(data, '$.cached_from')"
UNFINISHED = among(set(Status) - FINISHED)
UNDISCARDED = f"{among(FINISHED)} AND json_extract(data, '$.discarded') = 0"
"""SQL for finished jobs whose folder on the runner has not been removed yet; an index has these conditions."""
SHOWN = "run NOT IN (SELECT name FROM hidden_runs)"
"""SQL for jobs whose run was not deleted."""


class Jobs(RecordedTable):
    """The jobs of all runs. Unfinished jobs are also kept in memory."""

    def __init__(self, database: Database, events: EventLog) -> None:
        super().__init__(database, events)
        self.live: dict[str, Job] = {}
        self.version: tuple[int, int] | None = None
        self.had: dict[str, set[str]] | None = None

    def current(self) -> dict[str, Job]:
        """Return the unfinished jobs by id, oldest first."""
        version = self.database.version
        if version != self.version:
            self.live = {job.id: job for job in self.select(f"{UNFINISHED} ORDER BY number")}
            self.version = version
            self.had = None
        return self.live

    def add(self, job: Job) -> None:
        """Record a new job."""
        with self.database.transaction():
            self.database.execute(
                "INSERT INTO jobs (id, run, workflow, status, key, data) VALUES (?, ?, ?, ?, ?, ?)",
                (job.id, job.run, job.workflow, job.status.value, job.key, encoded(job)),
            )
            self.tell(None, job)
            if not job.finished:
                self.current()[job.id] = job

    def get(self, job_id: str) -> Job | None:
        """Return the job with exactly this id, or None."""
        live = self.current().get(job_id)
        if live is not None:
            return live
        return self.database.record(Job, "SELECT data FROM jobs WHERE id = ?", job_id)

    def require(self, job_id: str) -> Job:
        """Return the job with exactly this id. Raises NotFoundError if there is none."""
        job = self.get(job_id)
        if job is None:
            raise NotFoundError(f"no job '{job_id}'", hint="dstack jobs")
        return job

    def change(self, job_id: str, **changes: Any) -> Job:
        """Set fields of a job in one transaction. Raises ValueError for a status change that is not allowed."""
        with self.database.transaction():
            before = self.require(job_id)
            after = msgspec.structs.replace(before, **changes)
            if after.status is not before.status and not may_follow(before.status, after.status):
                raise ValueError(f"job {job_id}: {before.status.value} can't become {after.status.value}")
            self.database.execute(
                "UPDATE jobs SET status = ?, data = ? WHERE id = ?",
                (after.status.value, encoded(after), job_id),
            )
            self.tell(before, after)
            if after.image_digest != before.image_digest:
                self.had = None
            if after.finished:
                self.current().pop(job_id, None)
            else:
                self.current()[job_id] = after
        return after

    def tell(self, before: Job | None, after: Job) -> None:
        """Record the events of a change, and wake up the run's followers once it is committed."""
        self.database.changed.add(after.run)
        for kind in happened(before, after):
            actor = after.held if kind == "job.held" else None
            self.events.add(kind, actor=actor, run=after.run, job=after.id, runner=after.runner, data=details(after))

    def of(self, run: str) -> list[Job]:
        """Return the jobs of a run, dependencies first."""
        return self.select("run = ? ORDER BY number", run)

    def of_runs(self, runs: Sequence[str]) -> list[Job]:
        """Return the jobs of these runs, oldest first."""
        return self.select(f"run IN {marks(runs)} ORDER BY number", *runs)

    def unfinished(self) -> list[Job]:
        """Return all unfinished jobs, oldest first."""
        return list(self.current().values())

    def newest(self, limit: int) -> list[Job]:
        """Return the newest jobs, newest first."""
        return self.select(f"{SHOWN} ORDER BY number DESC LIMIT ?", limit)

    def users_of(self, jobs: Sequence[str]) -> list[tuple[str, str]]:
        """Return the job and the run of each cached job that uses the log and artifacts of one of these jobs."""
        sql = f"SELECT {SOURCE}, run FROM jobs WHERE {SOURCE} IN {marks(jobs)}"
        return [(source, run) for source, run in self.database.rows(sql, *jobs)]

    def images_of(self, runs: Sequence[str]) -> set[str]:
        """Return the images of the jobs of these runs."""
        sql = f"SELECT DISTINCT json_extract(data, '$.image') FROM jobs WHERE run IN {marks(runs)}"
        return set(self.database.column(sql, *runs))

    def incomplete(self, runs: Sequence[str]) -> list[Job]:
        """Return the jobs of these runs that ended without artifacts of their own."""
        lacking = f"{among(FINISHED)} AND {SOURCE} IS NULL AND json_extract(data, '$.files') = 0"
        return self.select(f"run IN {marks(runs)} AND {lacking} ORDER BY number", *runs)

    def ended(self, runs: Sequence[str]) -> dict[str, str]:
        """Return when the last job of each of these runs ended (RFC 3339), or else when the run was submitted."""
        sql = (
            "SELECT name, coalesce((SELECT max(json_extract(data, '$.finished_at')) FROM jobs WHERE run = name),"
            f" json_extract(data, '$.submitted_at')) FROM runs WHERE name IN {marks(runs)}"
        )
        return dict(map(tuple, self.database.rows(sql, *runs)))

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        self.database.table("jobs").delete_where("id = ?", [job_id])
        self.current().pop(job_id, None)

    def done_with(self, key: str) -> list[Job]:
        """Return the jobs that ran and made a result with this cache key, newest first. Their run, or a run that uses
        their result, must not be deleted."""
        jobs = self.select("key = ? AND status = ? ORDER BY number DESC", key, Status.DONE.value)
        return [job for job in jobs if job.cached_from is None and self.known_as(job) is not None]

    def known_as(self, job: Job) -> str | None:
        """Return the run that shows a job's result: its own, or else the newest that took it from the cache."""
        run: str | None = self.database.value(
            f"SELECT run FROM jobs WHERE (id = ?1 OR {SOURCE} = ?1) AND {SHOWN}"
            " ORDER BY id = ?1 DESC, number DESC LIMIT 1",
            job.id,
        )
        return run

    def last_done(self, workflow: str, repo: str) -> Job | None:
        """Return the newest successful job of this workflow and repository, to compare a cache miss with."""
        sql = (
            f"SELECT data FROM jobs WHERE repo = ? AND workflow = ? AND status = ? AND {SHOWN}"
            " ORDER BY number DESC LIMIT 1"
        )
        return self.database.record(Job, sql, repo, workflow, Status.DONE.value)

    def to_discard(self, runner: str) -> list[Job]:
        """Return the finished jobs whose folder on the runner has not been removed yet."""
        return self.select(f"{RUNNER} = ? AND {UNDISCARDED}", runner)

    def left_on(self) -> set[str]:
        """Return the runners with a finished job whose folder has not been removed yet."""
        return self._runners(UNDISCARDED)

    def aborted_on(self) -> set[str]:
        """Return the runners that may still have files of an aborted job."""
        return self._runners(f"{UNDISCARDED} AND {among([Status.STOPPED])} AND json_extract(data, '$.stop') = 'abort'")

    def _runners(self, condition: str) -> set[str]:
        sql = f"SELECT DISTINCT {RUNNER} FROM jobs INDEXED BY jobs_to_discard WHERE {condition}"
        return set(self.database.column(sql)) - {None}

    def images(self) -> dict[str, set[str]]:
        """Return the runners that have had each image, according to the last thousand jobs."""
        self.current()
        if self.had is None:
            self.had = {}
            rows = self.database.rows(
                f"SELECT DISTINCT json_extract(data, '$.image'), {RUNNER} FROM"
                " (SELECT data FROM jobs ORDER BY number DESC LIMIT 1000)"
                f" WHERE json_extract(data, '$.image_digest') IS NOT NULL AND {RUNNER} IS NOT NULL"
            )
            for image, runner in rows:
                self.had.setdefault(image, set()).add(runner)
        return self.had

    def matching(self, prefix: str) -> list[str]:
        """Return up to 10 ids that start with `prefix`."""
        sql = f"SELECT id FROM jobs WHERE id >= ? AND id < ? AND {SHOWN} LIMIT 10"
        return self.database.column(sql, prefix, prefix + LAST)

    def select(self, condition: str, *values: Any) -> list[Job]:
        """Return the jobs that match an SQL condition."""
        return self.database.records(Job, f"SELECT data FROM jobs WHERE {condition}", *values)


class CacheKeys(Table):
    """The components of every cache key, to explain why a later job has a different key. They are stored once for all
    jobs with that key."""

    def add(self, key: str, components: dict[str, str]) -> None:
        """Record the components of a key."""
        self.database.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (key, encoded(components)))

    def components(self, key: str) -> dict[str, str]:
        """Return the components of a key; empty if the key is unknown."""
        return self.database.record(dict[str, str], "SELECT components FROM keys WHERE key = ?", key) or {}
