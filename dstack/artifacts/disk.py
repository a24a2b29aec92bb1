"""What the folder store does with the file system."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from dstack.artifacts.contents import BLOCK
from dstack.errors import StorageError
from dstack.model.tree import shown


@contextlib.contextmanager
def storing(root: Path) -> Iterator[None]:
    """Trouble with the file system as StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"artifacts can't be stored in {root}: {error.strerror}: {shown(str(error.filename))}",
            hint="free space or fix the folder's rights; or choose another folder: dstack config --storage FOLDER",
        ) from error


def read(stored: Path, offset: int) -> Iterator[bytes]:
    """A file from an offset on."""
    with open(os.open(stored, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        source.seek(offset)
        while block := source.read(BLOCK):
            yield block


def points_to(path: Path, target: str) -> bool:
    """Whether there is a symbolic link with this target."""
    return path.is_symlink() and os.readlink(path) == target


def replace(target: Path, new: Path, old: Path) -> None:
    """Put a folder in another's place, whole; the other goes to `old`."""
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
    """Have the folder's file system written to the disk: once, instead of an fsync for each of thousands of files."""
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
