"""Secrets are stored encrypted, with a key that only its owner can read."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import DstackError
from dstack.model.paths import ServerLayout
from dstack.store.store import Store

NOW = "2026-01-01T00:00:00.000Z"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    yield opened
    opened.close()


def test_only_the_owner_can_read_the_key(store: Store) -> None:
    store.secrets.set("TOKEN", "hunter22", NOW)

    assert stat.S_IMODE(store.secrets.key.stat().st_mode) == 0o600


def test_no_file_holds_the_value(store: Store, tmp_path: Path) -> None:
    store.secrets.set("TOKEN", "hunter22", NOW)

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if b"hunter22" in path.read_bytes()] == []


def test_with_another_key_the_error_says_what_to_restore(store: Store, tmp_path: Path) -> None:
    store.secrets.set("TOKEN", "hunter22", NOW)
    store.secrets.key.unlink()
    other = Store(ServerLayout(tmp_path))
    other.secrets.set("OTHER", "x", NOW)

    with pytest.raises(DstackError, match="is not the key they were encrypted with"):
        other.secrets.require("TOKEN")
    other.close()


def test_a_job_is_given_each_value_once_until_its_log_is_removed(store: Store) -> None:
    store.secrets.give("a", ["hunter22", "12345"])
    store.secrets.give("a", ["12345", "hunter22"])
    assert sorted(store.secrets.given("a")) == ["12345", "hunter22"]

    store.secrets.forget("a")
    assert store.secrets.given("a") == []
