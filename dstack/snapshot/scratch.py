"""The temporary folder in which a snapshot is made. If its process is killed, the next snapshot removes it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = f"dstack-snapshot-{os.getuid()}-"
ABANDONED = 3600
"""Seconds after which a folder that no process holds is removed."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder, held by a lock until the context is left or the process ends."""
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with _locked(folder):
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.lstat().st_mtime <= time.time() - ABANDONED:
                with _locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use, or just removed
