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
    "index_ends": statements("CREATE INDEX jobs_by_end ON jobs (json_extract(data, '$.finished_at'))"),
    "metrics": statements(
        "CREATE TABLE metric_readers (job TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID",
        f"CREATE TABLE metric_series ({NUMBER}, job TEXT NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,"
        " stride INTEGER NOT NULL, last_step NUMERIC NOT NULL, last_time REAL NOT NULL, last_value REAL,"
        " min_step NUMERIC NOT NULL, min_time REAL NOT NULL, min_value REAL,"
        " max_step NUMERIC NOT NULL, max_time REAL NOT NULL, max_value REAL)",
        "CREATE UNIQUE INDEX metric_series_by_job ON metric_series (job, name)",
        "CREATE INDEX metric_series_by_name ON metric_series (name)",
        "CREATE TABLE metric_points (series INTEGER NOT NULL, number INTEGER NOT NULL, step NUMERIC NOT NULL,"
        " time REAL NOT NULL, value REAL, PRIMARY KEY (series, number)) WITHOUT ROWID",
    ),
    "sweeps": statements(
        f"CREATE TABLE sweeps ({NUMBER}, name TEXT NOT NULL, status TEXT NOT NULL, data TEXT NOT NULL,"
        " template TEXT NOT NULL)",
        "CREATE UNIQUE INDEX idx_sweeps_name ON sweeps (name)",
        "CREATE INDEX idx_sweeps_status ON sweeps (status)",
        "CREATE TABLE trials (id TEXT NOT NULL, sweep TEXT NOT NULL, number INTEGER NOT NULL,"
        " finished INTEGER NOT NULL, data TEXT NOT NULL, PRIMARY KEY (sweep, number)) WITHOUT ROWID",
        "CREATE INDEX idx_trials_unfinished ON trials (sweep, finished)",
    ),
    "web_sessions": statements(
        "CREATE TABLE sessions (hash TEXT PRIMARY KEY, token TEXT, user TEXT NOT NULL, used_at TEXT NOT NULL)"
        " WITHOUT ROWID",
    ),
    "index_run_lists": statements(
        "CREATE INDEX runs_listed ON runs (workflow, user, name)",
        "DROP INDEX idx_jobs_status",
        "CREATE INDEX idx_jobs_status ON jobs (status, run)",
        "CREATE INDEX idx_events_runner ON events (runner) WHERE runner IS NOT NULL",
    ),
    "notify": statements(
        f"CREATE TABLE notify_targets ({NUMBER}, owner TEXT NOT NULL, url TEXT NOT NULL, after INTEGER NOT NULL,"
        " data TEXT NOT NULL)",
        f"CREATE TABLE notify_messages ({NUMBER}, target INTEGER NOT NULL REFERENCES notify_targets ON DELETE CASCADE,"
        " id TEXT NOT NULL, data TEXT NOT NULL, UNIQUE (target, id))",
    ),
    "triggers": statements(
        "CREATE TABLE triggers (name TEXT PRIMARY KEY, paused INTEGER NOT NULL, data TEXT NOT NULL) WITHOUT ROWID",
        f'CREATE TABLE ticks ({NUMBER}, "trigger" TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,'
        ' data TEXT NOT NULL, UNIQUE ("trigger", key))',
        "CREATE INDEX open_ticks ON ticks (state, number) WHERE state IN ('due', 'waiting', 'submitted')",
        f'CREATE TABLE deliveries ({NUMBER}, "trigger" TEXT NOT NULL, id TEXT NOT NULL, at TEXT NOT NULL,'
        ' UNIQUE ("trigger", id))',
    ),
}
