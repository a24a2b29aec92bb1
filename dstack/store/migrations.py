"""The steps from one version of the database to the next. A step never changes once it is released."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from sqlite_utils import Database, Migrations

from dstack.errors import UsageError
from dstack.model.text.units import rfc3339

Step = Callable[[Database], None]


def migrate(database: Database) -> None:
    """Bring the schema up to date. `user_version` counts the steps taken: an older dstack refuses a number that it
    doesn't know, and before sqlite-utils kept a record of the steps, there was no other. It is recorded then."""
    done = database.execute("PRAGMA user_version").fetchone()[0]
    if done > len(STEPS):
        raise UsageError(
            "a newer dstack wrote the server's state, which this version can't read",
            hint="install that version of dstack, or a newer one",
        )
    if done == len(STEPS):
        return
    migrations = Migrations("dstack")
    for name, step in STEPS.items():
        migrations(name=name)(step)
    if not migrations.applied(database):
        migrations.ensure_migrations_table(database)
        now = rfc3339(time.time())
        database.table(migrations.migrations_table).insert_all(
            {"migration_set": migrations.name, "name": name, "applied_at": now} for name in islice(STEPS, done)
        )
    migrations.apply(database)
    database.execute(f"PRAGMA user_version = {len(STEPS)}")


def statements(*sql: str) -> Step:
    """Return a step that executes these statements."""

    def step(database: Database) -> None:
        for statement in sql:
            database.execute(statement)

    return step


def structure_reasons(database: Database) -> None:
    """Turn the reasons of jobs, sentences so far, into a code and a text."""
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
        "preempted_by": preempted.removeprefix("preempted by ") if preempted else None,
        "history": [{**attempt, "reason": reason(attempt["reason"])} for attempt in job.get("history", ())],
    }


def reason(text: str | None) -> dict[str, str | None] | None:
    return {"code": None, "text": text} if text else None


NUMBER = "number INTEGER PRIMARY KEY AUTOINCREMENT"
ORDER = ("running", "uploading", "preparing", "queued", "failed", "lost", "stopped", "done")


def summary(run: str) -> str:
    """Return SQL for the status of a run: that of its first job in the order of `dstack.model.job.status.SUMMARY`."""
    ranks = " ".join(f"WHEN '{status}' THEN {rank}" for rank, status in enumerate(ORDER))
    return f"coalesce((SELECT status FROM jobs WHERE run = {run} ORDER BY CASE status {ranks} END LIMIT 1), 'done')"


def keep_status(name: str, change: str, row: str = "NEW") -> str:
    """Return SQL for a trigger that keeps the status of a run, after a change of one of its jobs."""
    action = f"UPDATE runs SET status = {summary(f'{row}.run')} WHERE name = {row}.run"
    return f"CREATE TRIGGER {name} AFTER {change} BEGIN {action}; END"


REPO = "(SELECT CASE WHEN json_valid(data) THEN json_extract(data, '$.snapshot.repo') END FROM runs WHERE name = {run})"

STEPS: dict[str, Step] = {
    "first_schema": statements(
        f"CREATE TABLE runs ({NUMBER}, name TEXT NOT NULL, workflow TEXT NOT NULL, user TEXT NOT NULL,"
        " data TEXT NOT NULL)",
        "CREATE UNIQUE INDEX idx_runs_name ON runs (name)",
        f"CREATE TABLE jobs ({NUMBER}, id TEXT NOT NULL, run TEXT NOT NULL, workflow TEXT NOT NULL,"
        " status TEXT NOT NULL, key TEXT NOT NULL, data TEXT NOT NULL)",
        "CREATE UNIQUE INDEX idx_jobs_id ON jobs (id)",
        *(f"CREATE INDEX idx_jobs_{column} ON jobs ({column})" for column in ("run", "status", "key")),
        f"CREATE TABLE runners ({NUMBER}, name TEXT NOT NULL, data TEXT NOT NULL)",
        "CREATE UNIQUE INDEX idx_runners_name ON runners (name)",
        f"CREATE TABLE settings ({NUMBER}, name TEXT NOT NULL, value TEXT NOT NULL)",
        "CREATE UNIQUE INDEX idx_settings_name ON settings (name)",
        "CREATE TABLE keys (key TEXT PRIMARY KEY, components TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE shipped (runner TEXT NOT NULL, repo TEXT NOT NULL, object TEXT NOT NULL,"
        " PRIMARY KEY (runner, repo, object)) WITHOUT ROWID",
    ),
    "registrations": statements(
        "CREATE TABLE registrations (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE registration_tokens (hash TEXT PRIMARY KEY) WITHOUT ROWID",
    ),
    "index_idempotency_keys": statements("CREATE INDEX runs_by_key ON runs (json_extract(data, '$.once'))"),
    "contents_of_buckets": statements(
        "CREATE TABLE contents (storage TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,"
        " etag TEXT NOT NULL, PRIMARY KEY (storage, key)) WITHOUT ROWID",
        "CREATE INDEX contents_by_sum ON contents (storage, sha256, size)",
    ),
    "tags": statements("CREATE TABLE tags (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID"),
    "add_secrets": statements(
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL, set_at TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE given (job TEXT NOT NULL, value TEXT NOT NULL)",
        "CREATE INDEX idx_given_job ON given (job)",
    ),
    "hidden_runs": statements("CREATE TABLE hidden_runs (name TEXT PRIMARY KEY) WITHOUT ROWID"),
    "pulled_images": statements(
        "CREATE TABLE pulled (runner TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL,"
        " PRIMARY KEY (runner, image)) WITHOUT ROWID"
    ),
    "index_sources": statements("CREATE INDEX jobs_by_source ON jobs (json_extract(data, '$.cached_from'))"),
    "kept_artifacts": statements(
        "CREATE TABLE kept (job TEXT PRIMARY KEY, attempt TEXT NOT NULL, runner TEXT NOT NULL, since TEXT NOT NULL)"
        " WITHOUT ROWID",
        "CREATE INDEX kept_on ON kept (runner, since)",
    ),
    "structure_reasons": structure_reasons,
    "event_log": statements(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, time TEXT NOT NULL, actor TEXT NOT NULL,"
        " kind TEXT NOT NULL, run TEXT, job TEXT, runner TEXT, data TEXT NOT NULL)",
        "CREATE INDEX idx_events_run ON events (run)",
    ),
    "named_tokens": statements(
        "CREATE TABLE tokens (name TEXT PRIMARY KEY, hash TEXT NOT NULL, role TEXT NOT NULL, created_at TEXT NOT NULL,"
        " used_at TEXT) WITHOUT ROWID",
        "INSERT INTO tokens SELECT 'shared', value, 'admin', strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), NULL FROM settings"
        " WHERE name = 'token'",
        "DELETE FROM settings WHERE name = 'token'",
    ),
    "damaged_records": statements(
        f"CREATE TABLE damaged ({NUMBER}, kind TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL,"
        " problem TEXT NOT NULL, found_at TEXT NOT NULL)"
    ),
    "server_instances": statements(f"CREATE TABLE instances ({NUMBER}, id TEXT NOT NULL)"),
    "statuses_of_runs": statements(
        "ALTER TABLE runs ADD COLUMN status TEXT NOT NULL DEFAULT 'done'",
        f"UPDATE runs SET status = {summary('runs.name')}",
        keep_status("job_added", "INSERT ON jobs"),
        keep_status("job_changed", "UPDATE OF status ON jobs WHEN OLD.status IS NOT NEW.status"),
        keep_status("job_removed", "DELETE ON jobs", "OLD"),
        *(f"CREATE INDEX idx_runs_{column} ON runs ({column})" for column in ("status", "workflow", "user")),
        "CREATE INDEX runs_by_repo ON runs (json_extract(data, '$.snapshot.repo'), workflow)",
    ),
    "repositories_of_jobs": statements(
        "ALTER TABLE jobs ADD COLUMN repo TEXT",
        f"UPDATE jobs SET repo = {REPO.format(run='jobs.run')}",
        "CREATE TRIGGER job_repo AFTER INSERT ON jobs BEGIN"
        f" UPDATE jobs SET repo = {REPO.format(run='NEW.run')} WHERE number = NEW.number; END",
        "CREATE INDEX jobs_by_workflow ON jobs (repo, workflow, status)",
        "CREATE INDEX jobs_to_discard ON jobs (json_extract(data, '$.runner'))"
        " WHERE status IN ('done', 'failed', 'lost', 'stopped') AND json_extract(data, '$.discarded') = 0",
    ),
}
