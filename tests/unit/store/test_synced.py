"""What is committed is written to disk when someone waits for it, and only then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import ServerTroubleError
from dstack.model.paths import ServerLayout
from dstack.store.store import Store
from tests.unit.syncs import Syncs

WAL = "state.db-wal"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    yield opened
    opened.close()


def test_one_sync_serves_all_who_wait(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait() -> None:
        await asyncio.gather(*(store.database.synced() for _ in range(20)))

    syncs = Syncs(monkeypatch)
    for number in range(3):
        store.settings.set("x", str(number))
    assert syncs == []

    asyncio.run(wait())
    assert syncs == [WAL]

    asyncio.run(wait())
    assert syncs == [WAL], "nothing was committed since"

    store.runners.database.execute("DELETE FROM settings")
    asyncio.run(wait())
    assert syncs == [WAL, WAL], "a statement of its own is a commit, too"


def test_a_commit_during_a_sync_needs_another(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def both() -> None:
        store.settings.set("x", "1")
        first = asyncio.create_task(store.database.synced())
        await asyncio.sleep(0)
        store.settings.set("x", "2")
        await store.database.synced()
        await first

    syncs = Syncs(monkeypatch)
    asyncio.run(both())
    assert syncs == [WAL, WAL]


def test_a_failure_is_told_to_all_and_the_next_call_tries_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    async def wait() -> list[BaseException | None]:
        return await asyncio.gather(*(store.database.synced() for _ in range(3)), return_exceptions=True)

    store.settings.set("x", "1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        assert [type(found) for found in asyncio.run(wait())] == [ServerTroubleError] * 3
    syncs = Syncs(monkeypatch)
    assert asyncio.run(wait()) == [None] * 3
    assert syncs == [WAL]


def test_a_new_server_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs = Syncs(monkeypatch)
    Store(ServerLayout(tmp_path / "home")).close()
    assert syncs[:3] == ["server", "home", tmp_path.name]

    syncs.clear()
    Store(ServerLayout(tmp_path / "home")).close()
    assert syncs == ["server"], "its journal is new"
