"""What stays free on a disk, and what fits."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dstack.errors import DiskFullError
from dstack.plumbing.space import require, space

GB = 10**9


def disk(monkeypatch: pytest.MonkeyPatch, size: int, free: int, files: int = 10**6, left: int = 10**5) -> None:
    """Every folder is on a disk like this."""
    found = SimpleNamespace(f_frsize=1, f_blocks=size, f_bavail=free, f_files=files, f_favail=left)
    monkeypatch.setattr(os, "statvfs", lambda folder: found)


@pytest.mark.parametrize(
    ("size", "free", "reserve", "low"),
    [
        (4000 * GB, GB, 5 * 10**8, False),
        (4000 * GB, 4 * 10**8, 5 * 10**8, True),
        (GB, 10**8, 5 * 10**7, False),
        (GB, 4 * 10**7, 5 * 10**7, True),
    ],
)
def test_the_reserve(monkeypatch: pytest.MonkeyPatch, size: int, free: int, reserve: int, low: bool) -> None:
    disk(monkeypatch, size, free)

    assert (space(Path("/x")).reserve, space(Path("/x")).low) == (reserve, low)


def test_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, GB, 10**8)

    require(Path("/x"), 5 * 10**7)
    require(Path("/x"), 7 * 10**7, share=0.5)
    for size, share in ((6 * 10**7, 1.0), (8 * 10**7, 0.5)):
        with pytest.raises(DiskFullError, match=r"100 MB are free, and 1\d\d MB are needed"):
            require(Path("/x"), size, share=share)


def test_a_disk_without_room_for_more_files(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, GB, GB, left=10)

    assert space(Path("/x")).low
    with pytest.raises(DiskFullError, match="no more files"):
        require(Path("/x"), 1)


def test_a_file_system_that_does_not_count_files(monkeypatch: pytest.MonkeyPatch) -> None:
    disk(monkeypatch, GB, GB, files=0, left=0)

    assert not space(Path("/x")).low
