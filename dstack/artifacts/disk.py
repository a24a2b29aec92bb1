"""File system operations of the folder store."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from dstack.artifacts.folder.contents import BLOCK
from dstack.errors import StorageError
from dstack.model.job.tree import shown


@contextlib.contextmanager
def storing(root: Path) -> Iterator[None]:
    """Turn file system errors into StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"artifacts can't be stored in {root}: {error.strerror}: {shown(str(error.filename))}",
            hint="free space, fix the folder's permissions, or use another folder: dstack config --storage FOLDER",
        ) from error


def read(stored: Path, offset: int) -> Iterator[bytes]:
    """Yield a file's bytes from an offset on."""
    with open(os.open(stored, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        source.seek(offset)
        while block := source.read(BLOCK):
            yield block


def points_to(path: Path, target: str) -> bool:
    """Return whether the path is a symbolic link with this target."""
    return path.is_symlink() and os.readlink(path) == target


def replace(target: Path, new: Path, old: Path) -> None:
    """Rename the folder `new` to `target`. If `target` exists, rename it to `old` first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush(folder: Path) -> None:
    """Write the folder's file system to disk: one call instead of an fsync for each of thousands of files."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):
        os.sync()
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if libc.syncfs(descriptor) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)
