"""Whether an older state was put back: with `dstack server restore`, or by hand, by whoever copies the database."""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from dstack.model.text.units import rfc3339
from dstack.store.database import Database
from dstack.store.tables.events import EventLog
from dstack.store.tables.identity import EPOCH
from dstack.store.tables.settings import Settings

RESTORED_AT = "restored_at"
UNASKED = "unasked"
"""The settings that say when an older state was restored, and which runners have not been asked since."""

log = logging.getLogger("dstack.store")


def restored(database: Database, settings: Settings, epoch: int) -> None:
    """Make the state the newest one for all machines, which are asked before anything old is launched."""
    with database.transaction():
        settings.set(EPOCH, str(epoch))
        settings.set(RESTORED_AT, rfc3339(time.time()))
        settings.set(UNASKED, " ".join(database.column("SELECT name FROM runners ORDER BY number")))


class Newest:
    """The number of the newest event that is on disk, in a file beside the database."""

    def __init__(self, path: Path, events: EventLog) -> None:
        self.path = path
        self.events = events

    @property
    def noted(self) -> int:
        """What the file says; 0 if it says nothing."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return 0

    def note(self, event: int) -> None:
        """Write the file. It may be lost in a power cut: it is needed only to notice a copy that a person makes."""
        with suppress(OSError):
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, b"%020d\n" % event, 0)
            finally:
                os.close(file)

    def check(self, database: Database, settings: Settings) -> None:
        """If the database lacks events that were on disk, treat it as restored. One without events is a new one."""
        last, noted = self.events.last, self.noted
        if 0 < last < noted:
            log.warning("the database is older than what was recorded (event %d of %d): it was put back", last, noted)
            restored(database, settings, 1 + int(settings.get(EPOCH) or 1))
        self.note(last)
