"""Writes to disk what has to survive a power cut. Otherwise, the kernel keeps it in memory for up to half a minute."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from dstack.plumbing.file_errors import naming


def sync(path: Path) -> None:
    """Write a file's bytes to disk or, for a folder, the names in it. Some file systems can't do that for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Write the folder's whole file system to disk: one call instead of an fsync for each of thousands of files."""
    import ctypes  # takes 10 ms, which no command of a user needs

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


def sync_tree(folder: Path) -> None:
    """Write everything in a folder, and its name, to disk."""
    for path in (*folder.rglob("*"), folder, folder.parent):
        sync(path)


def write(path: Path, data: bytes) -> None:
    """Replace a file that only its owner may read: after a power cut, it has all the old bytes or all the new ones."""
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        with naming(path), os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)
