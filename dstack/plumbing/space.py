"""How much space a disk of the server has, and whether something fits. A reserve stays free for the server's state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dstack.errors import DiskFullError
from dstack.model.text.units import size_words

RESERVE = 500_000_000
SHARE = 0.05
"""The reserve: this many bytes, or this share of a small disk."""
FILES = 1000
"""How many more files a disk should take, at least; fewer on a small disk."""
HINT = "free space there, for instance with: dstack prune"


@dataclass(frozen=True)
class Space:
    """The space of a disk in bytes. `files` says that it has room for more files."""

    free: int
    reserve: int
    files: bool

    @property
    def low(self) -> bool:
        """Whether nothing new is accepted."""
        return self.free < self.reserve or not self.files


def space(folder: Path) -> Space:
    """Look at the disk that a folder is on. Costs microseconds."""
    disk = os.statvfs(folder)
    files = not disk.f_files or disk.f_favail >= min(FILES, disk.f_files * SHARE)
    return Space(disk.f_bavail * disk.f_frsize, min(RESERVE, int(disk.f_blocks * disk.f_frsize * SHARE)), files)


def require(folder: Path, size: int, *, share: float = 1.0) -> None:
    """Raise DiskFullError if a file of `size` bytes would use what has to stay free: `share` of the reserve."""
    found = space(folder)
    kept = int(found.reserve * share)
    if not found.files:
        raise DiskFullError(f"the server's disk has room for no more files ({folder})", hint=HINT)
    if found.free < size + kept:
        need = size_words(size + kept)
        raise DiskFullError(
            f"the server's disk is full: {size_words(found.free)} are free, and {need} are needed,"
            f" of which {size_words(kept)} stay free for its state ({folder})",
            hint=HINT,
        )
