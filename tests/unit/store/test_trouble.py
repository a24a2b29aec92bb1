"""A state that is locked, full or damaged is a typed error at once, and nothing is half done."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import DiskFullError, StateBusyError, StateDamagedError
from dstack.model.paths import ServerLayout
from dstack.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(ServerLayout(tmp_path))
    yield store
    store.close()


@pytest.fixture
def other(store: Store, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the database."""
    connection = sqlite3.connect(ServerLayout(tmp_path).database, isolation_level=None)
    yield connection
    connection.close()


def test_a_locked_database_does_not_keep_the_server(store: Store, other: sqlite3.Connection) -> None:
    store.settings.set("a", "before")
    other.execute("BEGIN EXCLUSIVE")

    for write in (lambda: store.settings.set("a", "b"), lambda: store.known_objects.add("box", "repo", ["tree"])):
        with pytest.raises(StateBusyError, match="locked"):
            write()

    begin = time.monotonic()
    for _ in range(200):
        with pytest.raises(StateBusyError):
            store.settings.set("a", "b")
    assert time.monotonic() - begin < 2, "only one a second waits"
    assert store.settings.get("a") == "before"
    other.execute("ROLLBACK")
    store.settings.set("a", "after")
    assert store.settings.get("a") == "after"


def test_what_does_not_fit_is_rolled_back(store: Store) -> None:
    store.settings.set("a", "before")
    pages = store.database.value("PRAGMA page_count")
    store.database.execute(f"PRAGMA max_page_count={pages}")

    def write() -> None:
        with store.database.transaction():
            store.settings.set("a", "after")
            store.settings.set("b", "x" * 10**6)

    with pytest.raises(DiskFullError, match="full"):
        write()

    assert (store.settings.get("a"), store.settings.get("b")) == ("before", None)
    store.database.execute(f"PRAGMA max_page_count={pages + 1000}")
    store.settings.set("b", "x" * 10**6)


def test_reserved_space_stays_in_the_log_that_changes_go_to(store: Store, tmp_path: Path) -> None:
    log = Path(f"{ServerLayout(tmp_path).database}-wal")

    store.database.reserve()

    size = log.stat().st_size
    assert size > 3_000_000
    for number in range(500):
        store.settings.set("a", str(number))
    assert log.stat().st_size == size
    assert store.settings.get("a") == "499"


def test_a_damaged_database_is_said_to_be_damaged(tmp_path: Path) -> None:
    Store(ServerLayout(tmp_path)).close()
    ServerLayout(tmp_path).database.write_bytes(b"no database at all" * 1000)

    with pytest.raises(StateDamagedError, match="damaged"):
        Store(ServerLayout(tmp_path))


def test_a_wrong_statement_stays_a_bug(store: Store) -> None:
    with pytest.raises(sqlite3.OperationalError):
        store.database.execute("SELECT nothing FROM nowhere")


def test_a_server_that_starts_while_another_program_has_the_state(tmp_path: Path) -> None:
    Store(ServerLayout(tmp_path)).close()
    other = sqlite3.connect(ServerLayout(tmp_path).database, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StateBusyError, match="locked"):
        Store(ServerLayout(tmp_path))

    other.close()
    Store(ServerLayout(tmp_path)).close()
