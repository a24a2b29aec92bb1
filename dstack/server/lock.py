"""One server for each home."""

from __future__ import annotations

import fcntl
from typing import IO

from dstack.errors import ConflictError
from dstack.model.paths import ServerLayout


def owned(layout: ServerLayout) -> IO[str]:
    """Lock the home so that only one server uses it. The system releases the lock when the process ends."""
    lock = layout.lock.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        message = f"another server is already running in {layout.home}"
        raise ConflictError(message, hint="dstack server status") from error
    return lock
