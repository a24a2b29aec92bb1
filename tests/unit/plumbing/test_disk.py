"""Files that survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dstack.plumbing import disk
from tests.unit.syncs import Syncs


def test_a_file_is_replaced_once_its_bytes_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a file that others may read, and what a killed process left beside it
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.with_name(f"key.{os.getpid()}").write_bytes(b"half")
    steps = Syncs(monkeypatch)
    real = Path.replace
    monkeypatch.setattr(Path, "replace", lambda *paths: (steps.append("replace"), real(*paths))[1])

    # When it is written
    disk.write(path, b"new")

    # Then its bytes were synced before it had its name, and its name afterwards
    assert steps == [f"key.{os.getpid()}", "replace", tmp_path.name]
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
