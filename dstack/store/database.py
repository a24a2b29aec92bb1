"""The SQLite file: opening and writing it."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlite_utils

from dstack.errors import DstackError, StateBusyError, StateDamagedError, UsageError, disk_full, server_trouble
from dstack.model.api import wire
from dstack.plumbing.disk import sync
from dstack.store.migrations import migrate

T = TypeVar("T")
BUSY_SECONDS = 0.1
"""How long a statement waits for another program's lock. The event loop waits with it."""
LAST = "\U0010ffff"
"""Sorts after all that follows a prefix. LIKE would ignore case, and read `%` and `_` as patterns."""
RESERVED = 6_000_000
"""In bytes. The cache keeps the last 2 MB of them; the others are reserved."""
DAMAGES = ("database disk image is malformed", "file is not a database")
"""SQLite's words for a damaged file. Its driver has their codes only since Python 3.11."""
UNDECODABLE = ("malformed JSON", "Could not decode to UTF-8")
"""What SQLite and its driver say about a text that is not what it should be; they have no codes for it."""
NETWORK_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "lustre", "ceph"})


class TypedConnection(sqlite3.Connection):
    """Raises ServerTroubleError if the machine, the disk or another program is in the way. However many statements meet
    another program's lock, only one a second waits for it."""

    impatient_until = 0.0
    path = Path()

    def execute(self, *given: Any) -> sqlite3.Cursor:
        return self.tried(super().execute, *given)

    def executemany(self, *given: Any) -> sqlite3.Cursor:
        return self.tried(super().executemany, *given)

    def tried(self, statement: Callable[..., sqlite3.Cursor], *given: Any) -> sqlite3.Cursor:
        if self.impatient_until and time.monotonic() > self.impatient_until:
            self.wait(BUSY_SECONDS)
        try:
            with typed(self.path):
                return statement(*given)
        except StateBusyError:
            if not self.impatient_until:
                self.wait(0)
            raise

    def wait(self, seconds: float) -> None:
        """Let statements wait so long for another program's lock."""
        super().execute(f"PRAGMA busy_timeout={int(seconds * 1000)}")
        self.impatient_until = 0.0 if seconds else time.monotonic() + 1


@contextmanager
def typed(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into dstack's, as far as they are not a statement's fault."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        known = trouble(path, error)
        if known is None:
            raise
        raise known from error


def trouble(path: Path, error: sqlite3.DatabaseError) -> DstackError | None:
    """Return what an error of SQLite means; None if the statement is wrong. Python 3.10 has only its text."""
    text = str(error)
    if "is locked" in text:
        message = "another program keeps the server's state locked; runs go on, but nothing can be recorded"
        return StateBusyError(message, hint="end that program; since when: dstack server status")
    if "is full" in text:
        return disk_full(f"{path}: {text}")
    if "I/O" in text or "readonly" in text or "unable to open" in text:
        return server_trouble(OSError(errno.EIO, f"{path}: {text}"))
    return damaged(path, error) if text in DAMAGES else None


class Database(sqlite_utils.Database):
    """A SQLite database in WAL mode, migrated to the latest schema.

    The methods of sqlite-utils' tables look at the schema at each call, which costs 50 to 200 µs; `execute` and `rows`
    cost 15. What is written or read for each job therefore has its SQL written out.

    A transaction collects in `changed` the names of the runs that it changes, and "" if it writes events. Once it is
    committed, `committed` gets them.

    A commit survives the end of the process. Only after `synced` does it survive a power cut, too.

    Once commits are on disk, `noted` gets the number of their newest event.

    A query that meets a row that can't be decoded has it healed by `heal`, which says whether it changed anything.
    """

    def __init__(self, path: Path) -> None:
        refuse_network_file_system(path.parent)
        new = not path.exists()
        path.open("ab").close()  # says what SQLite does not: why a file can't be written
        connection = sqlite3.connect(path, isolation_level=None, timeout=BUSY_SECONDS, factory=TypedConnection)
        connection.row_factory = sqlite3.Row
        connection.path = self.path = path
        super().__init__(connection, recursive_triggers=False, execute_plugins=False)
        self.enable_wal()
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            self.execute(f"PRAGMA {pragma}")
        path.chmod(0o600)
        self.rollbacks = 0
        self.changed: set[str] = set()
        self.committed: Callable[[set[str]], None] = lambda changed: None
        self.journal = path.with_name(f"{path.name}-wal")
        self.written = -1
        self.syncing: asyncio.Future[None] | None = None
        self.noted: Callable[[int], None] = lambda event: None
        self.heal: Callable[[], bool] = lambda: False
        migrate(self)
        for folder in (path.parent, *path.parent.parents)[: 3 if new else 1]:
            with suppress(PermissionError):
                sync(folder)

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
            self.rollbacks += 1
            self.changed = set()
            self.rollback()
            raise
        if self.changed:
            changed, self.changed = self.changed, set()
            self.committed(changed)

    async def synced(self) -> None:
        """Return once all that was committed so far is on disk. To be awaited before an act that can't be undone. One
        sync serves all who wait for it; without new commits, there is none.

        It is the sync that `synchronous=FULL` adds to each commit, see https://sqlite.org/pragma.html#pragma_synchronous.
        Here, only those wait for it who need it, and the event loop does not. Raises ServerTroubleError.
        """
        if self.syncing is None or self.written != self.conn.total_changes:
            self.written = self.conn.total_changes
            newest = self.value("SELECT max(id) FROM events") or 0
            self.syncing = asyncio.ensure_future(asyncio.to_thread(self.sync, newest))
        try:
            await asyncio.shield(self.syncing)
        except OSError as error:
            self.syncing = None
            raise server_trouble(error) or error from error

    def sync(self, newest: int) -> None:
        """Write to disk what was committed, up to the event `newest`."""
        sync(self.journal)
        self.noted(newest)

    def reserve(self) -> None:
        """Take space for changes that have to be recorded while the disk is full. What a transaction writes stays
        allocated in the write-ahead log after a rollback, and later transactions overwrite it."""
        self.execute("BEGIN IMMEDIATE")
        try:
            self.execute("CREATE TABLE space (data)")
            self.execute(f"INSERT INTO space VALUES (zeroblob({RESERVED}))")
        finally:
            self.rollback()

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
        """Read; if a row stands in the way, have it healed and read again. Raises ServerTroubleError."""
        try:
            with typed(self.path):
                return read()
        except msgspec.DecodeError:
            if not self.heal():
                raise
        except sqlite3.DatabaseError as trouble:
            if not any(words in str(trouble) for words in UNDECODABLE) or not self.heal():
                raise
        with typed(self.path):
            return read()


class Table:
    """What the server knows about one thing."""

    def __init__(self, database: Database) -> None:
        self.database = database


def damaged(path: Path, trouble: sqlite3.DatabaseError) -> DstackError:
    """Return the error for a database that can't be read: what is damaged, what still works, and what helps."""
    home, kept = path.parent.parent, f"{path}.damaged"
    return StateDamagedError(
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


def marks(values: Collection[object]) -> str:
    """Return SQL for a list of so many parameters. Older SQLite takes 999 in one statement."""
    return f"({', '.join('?' * len(values))})"


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
