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

from dstack.errors import FULL, FileError, reason
from dstack.plumbing.git import GitError

PREFIX = f"dstack-snapshot-{os.getuid()}-"
HINT = "free space there, or choose another folder for temporary files: export TMPDIR=FOLDER"
ABANDONED = 3600
"""Seconds after which a folder that no process holds is removed."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder, held by a lock until the context is left or the process ends."""
    try:
        _sweep()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        raise FileError(f"the code can't be copied: {reason(error)}", hint=HINT) from error
    with _locked(folder):
        try:
            yield folder
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise FileError(f"the code can't be copied to {folder}: {reason(error)}", hint=HINT) from error
        except GitError as error:
            if error.full:
                error.hint = HINT
            raise
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
