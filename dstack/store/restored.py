"""Whether an older state was put back: with `dstack server restore`, or by hand, by whoever copies the database."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from pathlib import Path

from dstack.model.job.job import Job
from dstack.plumbing.disk import sync
from dstack.store.database import Database
from dstack.store.tables.identity import EPOCH
from dstack.store.tables.jobs import Jobs
from dstack.store.tables.runners import Runners
from dstack.store.tables.settings import Settings

NEWEST_JOB = "restored_jobs"
UNASKED = "unasked"
"""The settings that say which job was the newest when an older state was restored, and which runners have not been
asked since."""

log = logging.getLogger("dstack.store")


def restored(database: Database, settings: Settings, epoch: int) -> None:
    """Make the state the newest one for all machines, which are asked before anything old is launched."""
    with database.transaction():
        settings.set(EPOCH, str(epoch))
        settings.set(NEWEST_JOB, str(database.value("SELECT max(number) FROM jobs") or 0))
        settings.set(UNASKED, " ".join(database.column("SELECT name FROM runners ORDER BY number")))


class Restoration:
    """What was restored, and who has not been asked since what happened to its jobs meanwhile."""

    def __init__(self, settings: Settings, jobs: Jobs, runners: Runners) -> None:
        self.settings = settings
        self.jobs = jobs
        self.runners = runners

    def knows_less(self, job: Job) -> bool:
        """Whether more may have happened to a job than its record says, because that was restored."""
        newest = int(self.settings.get(NEWEST_JOB) or 0)
        return newest > 0 and self.jobs.number(job.id) <= newest

    @property
    def unasked(self) -> list[str]:
        """The runners that have not been asked since."""
        names = (self.settings.get(UNASKED) or "").split()
        return [name for name in names if self.runners.get(name)]

    def doubt(self, job: Job) -> list[str]:
        """The runners that may have a job although its record does not say so."""
        unasked = self.unasked
        return unasked if unasked and self.knows_less(job) else []

    def renamed(self, old: str, new: str) -> None:
        """Note that a runner has another name, under which it will be asked."""
        names = (self.settings.get(UNASKED) or "").split()
        self.settings.set(UNASKED, " ".join(new if name == old else name for name in names))

    def asked(self, name: str) -> None:
        """Record that a runner has been asked."""
        if self.settings.get(UNASKED):
            self.settings.set(UNASKED, " ".join(each for each in self.unasked if each != name))


class Newest:
    """The newest progress of the state that is on disk, in a file beside the database."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def noted(self) -> int:
        """What the file says; 0 if it says nothing."""
        try:
            return int(self.path.read_text())
        except (OSError, ValueError):
            return 0

    def note(self, progress: int) -> None:
        """Write the file. It may be lost in a power cut: it is needed only to notice a copy that a person makes."""
        with suppress(OSError):
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.pwrite(file, b"%020d\n" % progress, 0)
            finally:
                os.close(file)

    def check(self, database: Database, settings: Settings) -> None:
        """If the database lacks what was on disk, treat it as restored. An empty one is a new one."""
        last, noted = database.progress, self.noted
        if 0 < last < noted:
            log.warning("the database is older than what was recorded (step %d of %d): it was put back", last, noted)
            sync(database.path)  # whoever copied it may not have
            sync(database.path.parent)
            restored(database, settings, 1 + int(settings.get(EPOCH) or 1))
        self.note(last)
