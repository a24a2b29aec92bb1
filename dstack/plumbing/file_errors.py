"""What the system's errors about files of this machine mean to the user."""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dstack.errors import FAILING, FULL, FileError, reason


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in an error of the system that lacks it: one of writing to an open file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn an error of the system about a file of this machine into FileError."""
    try:
        yield
    except OSError as error:
        raise file_trouble(error) or error from error


def file_trouble(error: OSError) -> FileError | None:
    """Return what an error of the system says about a file of this machine; None if it is about none."""
    if isinstance(error.filename, (str, bytes)) and error.filename:
        path = os.fsdecode(error.filename)
        return FileError(f"{path} can't be used: {reason(error)}", hint=_file_hint(error, path))
    if error.errno in FULL | FAILING:
        return FileError(f"this machine failed: {reason(error)}", hint="df -h; ulimit -a")
    return None


def _file_hint(error: OSError, path: str) -> str | None:
    """Return the command that shows why, if there is one."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"to see who may use it: {shlex.join(['ls', '-ld', os.path.dirname(path) or '.', path])}"
    if error.errno in FULL:
        return "free space on its disk, and run the same command again; to see the disks: df -h"
    return None
