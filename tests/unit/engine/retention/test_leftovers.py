"""What killed processes left on the server is removed: all at its start, later what is old."""

from __future__ import annotations

import os
from pathlib import Path

from dstack.engine.retention.leftovers import sweep_files


def test_only_what_is_old_is_swept(tmp_path: Path) -> None:
    for name, age in {"tmpold.pack": 100, "tmpnew.pack": 300}.items():
        (tmp_path / name).write_bytes(b"PACK")
        os.utime(tmp_path / name, (age, age))

    sweep_files(tmp_path, 200)

    assert [path.name for path in tmp_path.iterdir()] == ["tmpnew.pack"]
