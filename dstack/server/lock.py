"""One server for each home."""

from __future__ import annotations

import fcntl
import time
from typing import IO

from dstack.errors import ConflictError
from dstack.model.paths import ServerLayout

PATIENCE = 10.0
"""Seconds for which a server that was killed may hold the lock: until its last thread has written to disk."""
LOOK = 0.05
"""Seconds between two tries to get the lock."""


def owned(layout: ServerLayout) -> IO[str]:
    """Lock the home so that only one server uses it. The system releases the lock when the process ends."""
    lock, until = layout.lock.open("w"), time.monotonic() + PATIENCE
    while not locked(lock):
        if time.monotonic() > until:
            lock.close()
            message = f"another server is already running in {layout.home}"
            raise ConflictError(message, hint="dstack server status")
        time.sleep(LOOK)
    return lock


def locked(lock: IO[str]) -> bool:
    """Lock an open file, unless another process has locked it; return whether that worked."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
