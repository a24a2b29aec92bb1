"""The temporary folder in which a snapshot is made. If its process is killed, the next snapshot removes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = f"dstack-snapshot-{os.getuid()}-"
ABANDONED = 3600
"""Seconds after which a folder that no process holds is removed."""


class Scratch:
    """A new folder, held by a lock until it is closed or its process ends."""

    def __init__(self) -> None:
        _sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = _lock(self.path)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path)
        os.close(self._lock)


def _lock(folder: Path) -> int:
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.lstat().st_mtime > time.time() - ABANDONED:
                continue
            lock = _lock(folder)
        except OSError:
            continue  # in use, or just removed
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
