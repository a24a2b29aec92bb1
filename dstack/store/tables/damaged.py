"""Records that can't be decoded: each is set aside, and what it named goes on as well as it can without it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from dstack.model.api import wire
from dstack.model.api.artifacts import TagView
from dstack.model.api.notify import NotifyTarget
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import ExitCode, Job, Run
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.job.ticks import Tick, TriggerRecord
from dstack.model.metrics.state import ReaderState
from dstack.model.notify.message import Message
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.runner.registration import Registration
from dstack.model.runner.runner import Runner
from dstack.model.sweep.sweep import Sweep, Trial
from dstack.model.text.units import rfc3339
from dstack.store.database import Database, Table, encoded

UNKNOWN = "unknown"
TEXT = (
    "its record in the server's database was damaged; what is stored of it stays. What it left on a runner is shown by"
    " `dstack runners check NAME`"
)
KINDS: dict[str, tuple[str, Any, str]] = {
    "runs": ("name", Run, "run"),
    "jobs": ("id", Job, "job"),
    "runners": ("name", Runner, "runner"),
    "tags": ("name", TagView, "tag"),
    "registrations": ("name", Registration, "registration"),
    "sweeps": ("name", Sweep, "sweep"),
    "trials": ("id", Trial, "trial"),
    "metric_readers": ("job", ReaderState, "metrics"),
    "notify_targets": ("number", NotifyTarget, "notify URL"),
    "notify_messages": ("number", Message, "message"),
    "triggers": ("name", TriggerRecord, "trigger"),
    "ticks": ("number", Tick, "tick"),
}
"""Tables of records: the column that names each, its type, and the noun."""

log = logging.getLogger("dstack.store")


class DamagedRecords(Table):
    """What was set aside, as it was. A run or job stays in the list, with a reason; all else has to be made again."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.healing = False
        database.heal = self.heal

    def all(self) -> list[str]:
        """Return what is damaged, such as `job 1a2b`, in the order in which it was found."""
        return self.database.column("SELECT kind || ' ' || name FROM damaged ORDER BY number")

    def heal(self) -> bool:
        """Set aside every record that can't be decoded; return whether there was one."""
        if self.healing:
            return False
        self.healing = True
        try:
            with self.database.transaction():
                found = sum(self.set_aside(table) for table in KINDS)
        finally:
            self.healing = False
        self.database.rollbacks += 1  # what is cached may have been read from such rows
        return found > 0

    def set_aside(self, table: str) -> int:
        """Do so in one table."""
        column, kind, noun = KINDS[table]
        bad = []
        for name, data in self.database.execute(f"SELECT {column}, CAST(data AS BLOB) FROM {table}").fetchall():
            try:
                wire.decode(bytes(data), kind)
            except msgspec.DecodeError as trouble:
                bad.append((noun, str(name), bytes(data), str(trouble), rfc3339(time.time())))
        if not bad:
            return 0
        self.database.conn.executemany(
            "INSERT INTO damaged (kind, name, data, problem, found_at) VALUES (?, ?, ?, ?, ?)", bad
        )
        with self.without_indexes(table):
            for _, name, *_ in bad:
                self.replace(table, name)
        for _, name, _, problem, _ in bad:
            log.error("the record of %s %s is damaged and was set aside: %s", noun, name, problem)
        return len(bad)

    @contextmanager
    def without_indexes(self, table: str) -> Iterator[None]:
        """Drop the indexes on JSON meanwhile: they could not even forget a row that is none."""
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql LIKE '%json_extract%'"
        indexes = self.database.execute(sql, (table,)).fetchall()
        for name, _ in indexes:
            self.database.execute(f"DROP INDEX {name}")
        yield
        for _, create in indexes:
            self.database.execute(create)

    def replace(self, table: str, name: str) -> None:
        """Put a record in its place that says so, or none."""
        column = KINDS[table][0]
        stand_in: dict[str, Callable[[str], None]] = {"runs": self.run, "jobs": self.job}
        if table in stand_in:
            stand_in[table](name)
        else:
            self.database.execute(f"DELETE FROM {table} WHERE {column} = ?", (name,))

    def run(self, name: str) -> None:
        """Keep the run in the list. Its unfinished jobs can't go on without it."""
        workflow, user = self.database.execute("SELECT workflow, user FROM runs WHERE name = ?", (name,)).fetchone()
        snapshot = Snapshot(repo=UNKNOWN, tree="", git=False)
        now = rfc3339(time.time())
        run = Run(name=name, workflow=workflow, user=user, submitted_at=now, snapshot=snapshot, variables={})
        self.database.execute("UPDATE runs SET data = ? WHERE name = ?", (encoded(run), name))
        for job, status in self.database.execute("SELECT id, status FROM jobs WHERE run = ?", (name,)).fetchall():
            if not Status(status).finished:
                with self.without_indexes("jobs"):
                    self.job(job)

    def job(self, name: str) -> None:
        """Keep the job in the list, as ended."""
        sql = "SELECT run, workflow, status, key FROM jobs WHERE id = ?"
        run, workflow, text, key = self.database.execute(sql, (name,)).fetchone()
        status = Status.LOST
        with suppress(ValueError):
            status = Status(text) if Status(text).finished else Status.LOST
        now = rfc3339(time.time())
        job = Job(
            id=name,
            run=run,
            workflow=workflow,
            definition=Workflow(name=workflow, image=UNKNOWN, commands=("true",)),
            variables=Variables(),
            image=UNKNOWN,
            key=key,
            why=UNKNOWN,
            submitted_at=now,
            status=status,
            reason=Reason(ReasonCode.RECORD_DAMAGED, TEXT),
            exit_code=0 if status is Status.DONE else ExitCode.DSTACK,
            finished_at=now,
            discarded=True,
        )
        self.database.changed.add(run)
        self.database.execute("UPDATE jobs SET status = ?, data = ? WHERE id = ?", (status.value, encoded(job), name))
