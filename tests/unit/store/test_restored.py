"""A database that somebody put back, and a home that somebody copied, are noticed."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from dstack.model.paths import ServerLayout
from dstack.model.runner.runner import Address, Facts, Runner
from dstack.store import restored
from dstack.store.restored import NEWEST_JOB, UNASKED
from dstack.store.store import Store
from tests.unit.store.test_store import run


@pytest.fixture
def layout(tmp_path: Path) -> ServerLayout:
    """The state of a server with a runner."""
    layout = ServerLayout(tmp_path / "home")
    store = Store(layout)
    store.runners.add(Runner(name="box", address=Address(host="box"), facts=Facts(machine="m")))
    store.close()
    return layout


def record(layout: ServerLayout, name: str, *, to_disk: bool = True) -> None:
    """Add a run, and write it to disk."""
    store = Store(layout)
    store.runs.add(run(name))
    if to_disk:
        asyncio.run(store.database.synced())
    store.close()


def copy(layout: ServerLayout, target: Path) -> Path:
    with closing(sqlite3.connect(layout.database)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return target


def put_back(layout: ServerLayout, source: Path) -> None:
    for left in layout.state.glob("state.db*"):
        left.unlink()
    shutil.copy(source, layout.database)


def found(layout: ServerLayout) -> tuple[bool, str, int]:
    """Start; return whether the state counts as restored, the runners to ask, and the epoch."""
    store = Store(layout)
    try:
        asked = store.settings.get(UNASKED) or ""
        return bool(store.settings.get(NEWEST_JOB)), asked, store.identity.epoch
    finally:
        store.close()


def test_a_database_that_was_put_back_counts_as_restored(layout: ServerLayout, tmp_path: Path) -> None:
    record(layout, "before")
    yesterday = copy(layout, tmp_path / "yesterday")
    record(layout, "since")
    assert found(layout) == (False, "", 1)

    put_back(layout, yesterday)

    assert found(layout) == (True, "box", 2)
    assert found(layout) == (True, "box", 2), "noticed once"


def test_a_start_that_machines_were_told_of_counts(layout: ServerLayout, tmp_path: Path) -> None:
    """Else they would take the server, which no longer knows of that start, for a copy of another one."""
    record(layout, "before")
    yesterday = copy(layout, tmp_path / "yesterday")
    store = Store(layout)
    assert store.identity.owner
    asyncio.run(store.database.synced())
    store.close()

    put_back(layout, yesterday)

    assert found(layout) == (True, "box", 2)


def test_a_database_that_was_put_back_is_written_to_disk(
    layout: ServerLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever copied it may not have done so, and what is recorded next relies on it."""
    record(layout, "before")
    yesterday = copy(layout, tmp_path / "yesterday")
    record(layout, "since")
    put_back(layout, yesterday)
    synced: list[Path] = []
    monkeypatch.setattr(restored, "sync", synced.append)

    found(layout)

    assert synced == [layout.database, layout.state]


@pytest.mark.parametrize("left", ["nothing", "no file", "garbage", "unsynced", "a new database"])
def test_what_is_not_older_does_not(layout: ServerLayout, tmp_path: Path, left: str) -> None:
    record(layout, "before")
    now = copy(layout, tmp_path / "now")
    if left == "no file":
        layout.newest.unlink()
    elif left == "garbage":
        layout.newest.write_text("x")
    elif left == "unsynced":  # as after a power cut
        record(layout, "since", to_disk=False)
        put_back(layout, now)
    elif left == "a new database":
        layout.database.unlink()

    restored, _, epoch = found(layout)

    assert (restored, epoch) == (False, 2 if left == "a new database" else 1)


def test_a_full_disk_does_not_keep_it_from_writing_state(layout: ServerLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(layout)

    def full(*given: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    store.runs.add(run("r"))
    asyncio.run(store.database.synced())
    store.close()


def original_of(home: Path) -> str | None:
    store = Store(ServerLayout(home))
    try:
        return store.identity.copied
    finally:
        store.close()


def test_a_copy_of_a_home_knows_that_it_is_one(layout: ServerLayout, tmp_path: Path) -> None:
    shutil.copytree(layout.home, tmp_path / "copy")

    for _ in range(2):
        assert original_of(tmp_path / "copy") == f"{os.uname().nodename}:{layout.home}"
    assert original_of(layout.home) is None


@pytest.mark.parametrize("how", ["renamed", "moved to another disk", "put back where it was", "in a new container"])
def test_a_home_that_was_moved_is_no_copy(
    layout: ServerLayout, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    if how == "renamed":
        layout.home.rename(other)
    else:
        shutil.copytree(layout.home, other)
        shutil.rmtree(layout.home)
    if how == "put back where it was":
        other = shutil.copytree(other, layout.home)
    if how == "in a new container":
        layout.home.mkdir()
        other.rename(layout.home)
        other = layout.home
        assert original_of(other) is None
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "another", "", "", "")))

    assert original_of(other) is None


def test_a_copy_on_another_machine_is_one(
    layout: ServerLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(layout.home, tmp_path / "copy")
    shutil.rmtree(layout.home)
    machine = os.uname().nodename
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "another", "", "", "")))

    assert original_of(tmp_path / "copy") == f"{machine}:{layout.home}"


@pytest.mark.parametrize("how", ["take_over", "renew"])
def test_once_told_it_is_none_any_longer(layout: ServerLayout, tmp_path: Path, how: str) -> None:
    shutil.copytree(layout.home, tmp_path / "copy")
    store = Store(ServerLayout(tmp_path / "copy"))
    assert store.identity.copied
    getattr(store.identity, how)()
    store.close()

    assert original_of(tmp_path / "copy") is None


def test_the_one_that_was_told_last_wins(layout: ServerLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(layout.home, tmp_path / "copy")
    stores = [Store(layout), Store(ServerLayout(tmp_path / "copy"))]
    epochs = []
    for number, store in enumerate([*stores, *stores]):
        monkeypatch.setattr(time, "time", lambda number=number: 1_800_000_000.0 + number)
        store.identity.take_over()
        epochs.append(store.identity.epoch)
    for store in stores:
        store.close()

    assert epochs == sorted(set(epochs))
