"""The steps from one version of the database to the next. A step never changes once it is released."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlite_utils import Database, Migrations

from dstack.errors import UsageError
from dstack.model.text.units import rfc3339
from dstack.store.structured_reasons import structure_reasons


def migrate(database: Database) -> None:
    """Bring the schema up to date. `user_version` counts the steps taken: an older dstack refuses a number that it
    doesn't know, and before sqlite-utils kept a record of the steps, there was no other."""
    done = database.execute("PRAGMA user_version").fetchone()[0]
    if done > len(STEPS):
        raise UsageError(
            "a newer dstack wrote the server's state, which this version can't read",
            hint="install that version of dstack, or a newer one",
        )
    if done == len(STEPS):
        return
    migrations = Migrations("dstack")
    for step in STEPS:
        migrations(name=step.__name__)(step)
    if not migrations.applied(database):
        adopt(database, migrations, done)
    migrations.apply(database)
    database.execute(f"PRAGMA user_version = {len(STEPS)}")


def adopt(database: Database, migrations: Migrations, done: int) -> None:
    """Record the steps that a dstack without this record has taken."""
    migrations.ensure_migrations_table(database)
    now = rfc3339(time.time())
    database.table(migrations.migrations_table).insert_all(
        {"migration_set": migrations.name, "name": step.__name__, "applied_at": now} for step in STEPS[:done]
    )


def first_schema(database: Database) -> None:
    records: dict[str, dict[str, type]] = {
        "runs": {"name": str, "workflow": str, "user": str, "data": str},
        "jobs": {"id": str, "run": str, "workflow": str, "status": str, "key": str, "data": str},
        "runners": {"name": str, "data": str},
        "settings": {"name": str, "value": str},
    }
    for table, columns in records.items():
        statement = ", ".join(f"{name} TEXT NOT NULL" for name in columns)
        database.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY AUTOINCREMENT, {statement})")
        database.table(table).create_index([next(iter(columns))], unique=True)
    for column in ("run", "status", "key"):
        database.table("jobs").create_index([column])
    database.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, components TEXT NOT NULL) WITHOUT ROWID")
    database.execute(
        "CREATE TABLE shipped (runner TEXT NOT NULL, repo TEXT NOT NULL, object TEXT NOT NULL,"
        " PRIMARY KEY (runner, repo, object)) WITHOUT ROWID"
    )


def registrations(database: Database) -> None:
    database.execute("CREATE TABLE registrations (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID")
    database.execute("CREATE TABLE registration_tokens (hash TEXT PRIMARY KEY) WITHOUT ROWID")


def index_idempotency_keys(database: Database) -> None:
    database.execute("CREATE INDEX runs_by_key ON runs (json_extract(data, '$.once'))")


def contents_of_buckets(database: Database) -> None:
    database.execute(
        "CREATE TABLE contents (storage TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,"
        " etag TEXT NOT NULL, PRIMARY KEY (storage, key)) WITHOUT ROWID"
    )
    database.execute("CREATE INDEX contents_by_sum ON contents (storage, sha256, size)")


def tags(database: Database) -> None:
    database.execute("CREATE TABLE tags (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID")


def add_secrets(database: Database) -> None:
    database.execute(
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL, set_at TEXT NOT NULL) WITHOUT ROWID"
    )
    database.execute("CREATE TABLE given (job TEXT NOT NULL, value TEXT NOT NULL)")
    database.table("given").create_index(["job"])


def hidden_runs(database: Database) -> None:
    database.execute("CREATE TABLE hidden_runs (name TEXT PRIMARY KEY) WITHOUT ROWID")


def pulled_images(database: Database) -> None:
    database.execute(
        "CREATE TABLE pulled (runner TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL,"
        " PRIMARY KEY (runner, image)) WITHOUT ROWID"
    )


def index_sources(database: Database) -> None:
    database.execute("CREATE INDEX jobs_by_source ON jobs (json_extract(data, '$.cached_from'))")


def kept_artifacts(database: Database) -> None:
    database.execute(
        "CREATE TABLE kept (job TEXT PRIMARY KEY, attempt TEXT NOT NULL, runner TEXT NOT NULL, since TEXT NOT NULL)"
        " WITHOUT ROWID"
    )
    database.execute("CREATE INDEX kept_on ON kept (runner, since)")


def event_log(database: Database) -> None:
    database.execute(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, time TEXT NOT NULL, actor TEXT NOT NULL,"
        " kind TEXT NOT NULL, run TEXT, job TEXT, runner TEXT, data TEXT NOT NULL)"
    )
    database.table("events").create_index(["run"])


STEPS: tuple[Callable[[Database], None], ...] = (
    first_schema,
    registrations,
    index_idempotency_keys,
    contents_of_buckets,
    tags,
    add_secrets,
    hidden_runs,
    pulled_images,
    index_sources,
    kept_artifacts,
    structure_reasons,
    event_log,
)
