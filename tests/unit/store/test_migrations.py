"""Databases of earlier versions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import sqlite_utils

from dstack.model.api.tokens import Role
from dstack.model.job.pieces import Stored
from dstack.model.job.reasons import Reason
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.store.migrations import STEPS
from dstack.store.store import Store
from dstack.store.tables.tokens import hashed

STATE = Path(__file__).parents[2] / "data" / "state"


def layout(folder: Path) -> ServerLayout:
    """The files of a server whose folders exist."""
    found = ServerLayout(folder)
    found.state.mkdir(parents=True)
    return found


@contextmanager
def at_step(path: Path, done: int) -> Iterator[sqlite_utils.Database]:
    """A database as an early version left it, after the first `done` steps."""
    database = sqlite_utils.Database(path)
    with database.atomic():
        for step in islice(STEPS.values(), done):
            step(database)
        yield database
    database.execute(f"PRAGMA user_version = {done}")
    database.close()


def columns_and_indexes(database: sqlite_utils.Database) -> dict[str, object]:
    return {
        table.name: (table.columns, sorted((index.name, index.columns) for index in table.indexes))
        for table in database.tables
        if table.name != "sqlite_sequence"
    }


def test_the_state_of_the_first_release_is_read_without_loss(tmp_path: Path) -> None:
    found = layout(tmp_path)
    script = (STATE / "0.1.0.sql").read_text()
    found.secret_key.write_text(script.partition("\n")[0].rpartition(" ")[2])
    before = sqlite3.connect(found.database)
    before.executescript(script)
    before.close()

    store = Store(found)

    assert [run.name for run in store.runs.newest(-1)] == ["calm-fox-1", "brave-otter-7"]
    assert store.runs.hidden() == ["old-owl-2"]
    assert store.runs.require("brave-otter-7").variables == {"lr": "0.1"}
    assert [(job.id, job.status) for job in store.jobs.newest(9)] == [("bb", Status.RUNNING), ("aa", Status.DONE)]
    assert (store.jobs.require("bb").gpus, store.jobs.require("bb").history[0].reason) == ((0, 1), Reason(None, "x"))
    assert store.jobs.users_of(["aa"]) == [("aa", store.jobs.require("cc").run)]
    assert store.cache_keys.components("k") == {"image": "busybox"}
    assert [(runner.name, runner.drained) for runner in store.runners.all()] == [("lab1", "maintenance")]
    assert store.settings.server_id == "0a1b2c3d"
    assert (store.settings.get("storage"), store.settings.get("max-gpus-per-user")) == ("s3://bucket/runs", "8")
    assert [tag.run for tag in store.tags.all()] == ["brave-otter-7"]
    assert store.registrations.require("lab2").approved
    assert store.registrations.take_token("hash-of-a-token")
    assert sorted(store.known_objects.of("lab1", "r")) == ["c", "t"]
    assert store.pulled_images.of("lab1") == {"busybox": "sha256:1"}
    assert store.bucket_contents.find("s3://bucket/runs", "sum", 10) == [Stored("runs/a", 10, "etag")]
    assert [kept.attempt for kept in store.retained_artifacts.of("lab1")] == ["aa-1"]
    assert (store.secrets.require("HF_TOKEN"), store.secrets.given("bb")) == ("hf_secret", ["hf_secret"])
    store.close()


@pytest.mark.parametrize("done", range(1, len(STEPS)))
def test_each_earlier_schema_becomes_the_same_as_a_new_one(tmp_path: Path, done: int) -> None:
    fresh, found = Store(layout(tmp_path / "fresh")), layout(tmp_path / "old")
    with at_step(found.database, done):
        pass

    migrated = Store(found)

    assert columns_and_indexes(migrated.database) == columns_and_indexes(fresh.database)
    migrated.close()
    fresh.close()


def test_a_step_that_fails_is_taken_again_at_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(database: sqlite_utils.Database) -> None:
        database.execute("CREATE TABLE half (name TEXT)")
        raise RuntimeError("the disk is full")

    monkeypatch.setattr("dstack.store.migrations.STEPS", {**STEPS, "broken": broken})
    with pytest.raises(RuntimeError, match="the disk is full"):
        Store(ServerLayout(tmp_path))
    monkeypatch.undo()

    store = Store(ServerLayout(tmp_path))

    assert "half" not in store.database.table_names()
    assert store.settings.server_id
    store.close()


def test_the_token_of_an_earlier_server_is_the_shared_one(tmp_path: Path) -> None:
    found = layout(tmp_path)
    with at_step(found.database, list(STEPS).index("named_tokens")) as database:
        database.execute("INSERT INTO settings (name, value) VALUES ('token', ?)", [hashed("everyone's")])

    store = Store(found)

    known = store.tokens.find("everyone's")
    assert known is not None
    assert (known.name, known.role, known.used_at) == ("shared", Role.ADMIN, None)
    assert store.settings.get("token") is None
    store.close()
