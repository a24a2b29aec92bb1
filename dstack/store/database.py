"""The SQLite file: opening and writing it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlite_utils

from dstack.errors import DamagedStateError, DstackError, UsageError
from dstack.model.api import wire
from dstack.store.migrations import migrate

T = TypeVar("T")
DAMAGES = ("database disk image is malformed", "file is not a database")
"""SQLite's words for a damaged file. Its driver has their codes only since Python 3.11."""
UNDECODABLE = ("malformed JSON", "Could not decode to UTF-8")
"""What SQLite and its driver say about a text that is not what it should be; they have no codes for it."""
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "lustre", "ceph"})


class Database(sqlite_utils.Database):
    """A SQLite database in WAL mode, migrated to the latest schema.

    The methods of sqlite-utils' tables look at the schema at each call, which costs 50 to 200 µs; `execute` and `rows`
    cost 15. What is written or read for each job therefore has its SQL written out.

    A transaction collects in `changed` the names of the runs that it changes, and "" if it writes events. Once it is
    committed, `committed` gets them.

    A query that meets a row that can't be decoded has it healed by `heal`, which says whether it changed anything.
    """

    def __init__(self, path: Path) -> None:
        refuse_network_file_system(path.parent)
        connection = sqlite3.connect(path, isolation_level=None, timeout=30)
        connection.row_factory = sqlite3.Row
        self.path = path
        super().__init__(connection, recursive_triggers=False, execute_plugins=False)
        try:
            self.enable_wal()
        except sqlite3.DatabaseError as trouble:
            raise self.explained(trouble) from trouble
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            self.execute(f"PRAGMA {pragma}")
        path.chmod(0o600)
        self.rollbacks = 0
        self.changed: set[str] = set()
        self.committed: Callable[[set[str]], None] = lambda changed: None
        self.heal: Callable[[], bool] = lambda: False
        migrate(self)

    @property
    def version(self) -> tuple[int, int]:
        """A value that changes when cached rows may be outdated: after a rollback, or a write by another process
        (https://sqlite.org/pragma.html#pragma_data_version)."""
        seen: int = self.conn.execute("PRAGMA data_version").fetchone()[0]
        return self.rollbacks, seen

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make all writes inside atomic. A nested transaction joins the outer one. Unlike `atomic()`, it takes the
        write lock at once: a transaction that reads first can't be overtaken by another writer."""
        if self.conn.in_transaction:
            yield
            return
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.commit()
        except BaseException:
            self.rollback()
            self.rollbacks += 1
            self.changed = set()
            raise
        if self.changed:
            changed, self.changed = self.changed, set()
            self.committed(changed)

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Run one statement. Raises DamagedStateError if the database can't be read."""
        try:
            cursor: sqlite3.Cursor = super().execute(*arguments)
        except sqlite3.DatabaseError as trouble:
            raise self.explained(trouble) from trouble
        return cursor

    def explained(self, trouble: sqlite3.DatabaseError) -> Exception:
        """Return the error to raise for one of SQLite's."""
        return damaged(self.path, trouble) if str(trouble) in DAMAGES else trouble

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        return self.readable(lambda: self.execute(sql, values).fetchall())

    def column(self, sql: str, *values: Any) -> list[Any]:
        """Return the first column of a query."""
        return [row[0] for row in self.rows(sql, *values)]

    def value(self, sql: str, *values: Any) -> Any:
        """Return the first column of a query's first row, or None."""
        row = self.readable(lambda: self.execute(sql, values).fetchone())
        return row[0] if row else None

    def records(self, kind: type[T], sql: str, *values: Any) -> list[T]:
        """Return the first column of a query, decoded from JSON."""
        return self.readable(lambda: [wire.decode(text.encode(), kind) for text in self.column(sql, *values)])

    def record(self, kind: type[T], sql: str, *values: Any) -> T | None:
        """Return the first column of a query's first row, decoded from JSON, or None."""

        def read() -> T | None:
            text = self.value(sql, *values)
            return None if text is None else wire.decode(text.encode(), kind)

        return self.readable(read)

    def readable(self, read: Callable[[], T]) -> T:
        """Read; if a row stands in the way, have it healed and read again. Raises DamagedStateError."""
        try:
            return read()
        except msgspec.DecodeError:
            if not self.heal():
                raise
        except sqlite3.DatabaseError as trouble:
            if not any(words in str(trouble) for words in UNDECODABLE) or not self.heal():
                raise self.explained(trouble) from trouble
        return read()


class Table:
    """What the server knows about one thing."""

    def __init__(self, database: Database) -> None:
        self.database = database


def damaged(path: Path, trouble: sqlite3.DatabaseError) -> DstackError:
    """Return the error for a database that can't be read: what is damaged, what still works, and what helps."""
    home, kept = path.parent.parent, f"{path}.damaged"
    return DamagedStateError(
        f"the server's database {path} is damaged: {quick_check(path) or trouble}. Jobs run on, and their machines keep"
        f" what they make; logs, code and artifacts in {path.parent} are not affected",
        hint=f"put a backup back: dstack server restore FILE; without one, start empty with `mv {path} {kept}`, add the"
        f" machines again (dstack runners add), and the server of {home} finds its jobs there",
    )


def quick_check(path: Path) -> str | None:
    """Return what SQLite finds wrong first, None if that is nothing or it can't even look."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            found: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.DatabaseError:
        return None
    return None if found == "ok" else found.replace("\n", " ")


def encoded(value: Any) -> str:
    """Return a value as the JSON that `Database.records` decodes."""
    return wire.encode(value).decode()


def refuse_network_file_system(folder: Path) -> None:
    """Raise UsageError on a network file system, where SQLite's locks are unreliable (https://sqlite.org/wal.html)."""
    mounts = Path("/proc/self/mounts")
    lines = mounts.read_text(errors="replace").splitlines() if mounts.exists() else []
    kinds = {point.replace("\\040", " "): kind for _, point, kind, *_ in (line.split(" ") for line in lines)}
    target = folder.resolve()
    kind = next((kinds[str(above)] for above in (target, *target.parents) if str(above) in kinds), None)
    if kind in NETWORK_FILE_SYSTEMS:
        raise UsageError(
            f"{folder} is on a network file system ({kind}), which can corrupt the server's state",
            hint="put it on a local disk: export DSTACK_HOME=/var/tmp/dstack-$USER",
        )
