"""The SQLite file: opening, migrating and writing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlite_utils

from dstack.errors import UsageError
from dstack.store.structured_reasons import structure_reasons

NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "lustre", "ceph"})


class Database:
    """A SQLite database in WAL mode, migrated to the latest schema."""

    def __init__(self, path: Path) -> None:
        refuse_network_file_system(path.parent)
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        path.chmod(0o600)
        self.connection = connection
        self.rollbacks = 0
        self.migrate()

    @property
    def version(self) -> tuple[int, int]:
        """A value that changes when cached rows may be outdated: after a rollback, or a write by another process
        (https://sqlite.org/pragma.html#pragma_data_version)."""
        seen: int = self.connection.execute("PRAGMA data_version").fetchone()[0]
        return self.rollbacks, seen

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside atomic. A nested transaction joins the outer one."""
        if self.connection.in_transaction:
            yield
            return
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            self.rollbacks += 1
            raise
        self.connection.execute("COMMIT")

    def execute(self, sql: str, *values: Any) -> int:
        """Run one statement. Return the number of rows it changed."""
        return self.connection.execute(sql, values).rowcount

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        return self.connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        first: sqlite3.Row | None = self.connection.execute(sql, values).fetchone()
        return first

    def migrate(self) -> None:
        """Bring the schema up to date, one recorded step at a time."""
        done = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if done > len(MIGRATIONS):
            raise UsageError(
                "a newer dstack wrote the server's state, which this version can't read",
                hint="update dstack: pip install --upgrade dstack",
            )
        for number, step in enumerate(MIGRATIONS[done:], done + 1):
            with self.transaction():
                step(sqlite_utils.Database(self.connection, recursive_triggers=False))
                self.connection.execute(f"PRAGMA user_version = {number}")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()


def refuse_network_file_system(folder: Path) -> None:
    """Raise UsageError on a network file system, where SQLite's locks are unreliable (https://sqlite.org/wal.html)."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return
    best, kind = "", ""
    target = str(folder.resolve())
    for line in mounts.read_text(errors="replace").splitlines():
        _, point, system, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, system
    if kind in NETWORK_FILE_SYSTEMS:
        raise UsageError(
            f"{folder} is on a network file system ({kind}), which can corrupt the server's state",
            hint="put it on a local disk: export DSTACK_HOME=/var/tmp/dstack-$USER",
        )


def first_schema(database: sqlite_utils.Database) -> None:
    records: dict[str, dict[str, type]] = {
        "runs": {"name": str, "workflow": str, "user": str, "data": str},
        "jobs": {"id": str, "run": str, "workflow": str, "status": str, "key": str, "data": str},
        "runners": {"name": str, "data": str},
        "settings": {"name": str, "value": str},
    }
    for table, columns in records.items():
        statement = ", ".join(f"{name} TEXT NOT NULL" for name in columns)
        database.conn.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY AUTOINCREMENT, {statement})")
        database.table(table).create_index([next(iter(columns))], unique=True)
    for column in ("run", "status", "key"):
        database.table("jobs").create_index([column])
    database.conn.execute("CREATE TABLE keys (key TEXT PRIMARY KEY, components TEXT NOT NULL) WITHOUT ROWID")
    database.conn.execute(
        "CREATE TABLE shipped (runner TEXT NOT NULL, repo TEXT NOT NULL, object TEXT NOT NULL,"
        " PRIMARY KEY (runner, repo, object)) WITHOUT ROWID"
    )


def registrations(database: sqlite_utils.Database) -> None:
    database.conn.execute("CREATE TABLE registrations (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID")
    database.conn.execute("CREATE TABLE registration_tokens (hash TEXT PRIMARY KEY) WITHOUT ROWID")


def index_idempotency_keys(database: sqlite_utils.Database) -> None:
    database.conn.execute("CREATE INDEX runs_by_key ON runs (json_extract(data, '$.once'))")


def contents_of_buckets(database: sqlite_utils.Database) -> None:
    database.conn.execute(
        "CREATE TABLE contents (storage TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,"
        " etag TEXT NOT NULL, PRIMARY KEY (storage, key)) WITHOUT ROWID"
    )
    database.conn.execute("CREATE INDEX contents_by_sum ON contents (storage, sha256, size)")


def tags(database: sqlite_utils.Database) -> None:
    database.conn.execute("CREATE TABLE tags (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID")


def add_secrets(database: sqlite_utils.Database) -> None:
    database.conn.execute(
        "CREATE TABLE secrets (name TEXT PRIMARY KEY, value TEXT NOT NULL, set_at TEXT NOT NULL) WITHOUT ROWID"
    )
    database.conn.execute("CREATE TABLE given (job TEXT NOT NULL, value TEXT NOT NULL)")
    database.table("given").create_index(["job"])


def hidden_runs(database: sqlite_utils.Database) -> None:
    database.conn.execute("CREATE TABLE hidden_runs (name TEXT PRIMARY KEY) WITHOUT ROWID")


def pulled_images(database: sqlite_utils.Database) -> None:
    database.conn.execute(
        "CREATE TABLE pulled (runner TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL,"
        " PRIMARY KEY (runner, image)) WITHOUT ROWID"
    )


def index_sources(database: sqlite_utils.Database) -> None:
    database.conn.execute("CREATE INDEX jobs_by_source ON jobs (json_extract(data, '$.cached_from'))")


def kept_artifacts(database: sqlite_utils.Database) -> None:
    database.conn.execute(
        "CREATE TABLE kept (job TEXT PRIMARY KEY, attempt TEXT NOT NULL, runner TEXT NOT NULL, since TEXT NOT NULL)"
        " WITHOUT ROWID"
    )
    database.conn.execute("CREATE INDEX kept_on ON kept (runner, since)")


MIGRATIONS: tuple[Callable[[sqlite_utils.Database], None], ...] = (
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
)
