"""Sweeps, in the order of submission, and their trials."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dstack.errors import ConflictError, NotFoundError
from dstack.model.api.runs import Submission
from dstack.model.code.snapshot import Snapshot
from dstack.model.sweep.space import Point
from dstack.model.sweep.status import SweepStatus
from dstack.model.sweep.sweep import Sweep, Trial
from dstack.store.database import LAST, encoded
from dstack.store.tables.events import RecordedTable

RUNNING = f"status = '{SweepStatus.RUNNING.value}'"


class Sweeps(RecordedTable):
    """The submitted sweeps. `template` is what each trial submits, with values, a name and a key of its own."""

    def add(self, sweep: Sweep, template: Submission) -> None:
        """Record a sweep. Raises ConflictError if its name is taken."""
        if self.get(sweep.name):
            raise ConflictError(f"a sweep named '{sweep.name}' already exists", hint=f"dstack sweep show {sweep.name}")
        with self.database.transaction():
            self.database.execute(
                "INSERT INTO sweeps (name, status, data, template) VALUES (?, ?, ?, ?)",
                (sweep.name, sweep.status.value, encoded(sweep), encoded(template)),
            )
            self._tell("sweep.submitted", sweep.name, actor=sweep.user, workflow=sweep.workflow)

    def get(self, name: str) -> Sweep | None:
        """Return the sweep with exactly this name, or None."""
        return self.database.record(Sweep, "SELECT data FROM sweeps WHERE name = ?", name)

    def require(self, name: str) -> Sweep:
        """Return the sweep with exactly this name. Raises NotFoundError if there is none."""
        sweep = self.get(name)
        if sweep is None:
            raise NotFoundError(f"no sweep '{name}'", hint="dstack sweep list")
        return sweep

    def matching(self, prefix: str) -> list[str]:
        """Return up to 10 names that start with `prefix`; only the name itself if `prefix` is a complete name."""
        if self.get(prefix):
            return [prefix]
        sql = "SELECT name FROM sweeps WHERE name >= ? AND name < ? LIMIT 10"
        return self.database.column(sql, prefix, prefix + LAST)

    def newest(self, limit: int) -> list[Sweep]:
        """Return the newest sweeps, newest first."""
        return self.database.records(Sweep, "SELECT data FROM sweeps ORDER BY number DESC LIMIT ?", limit)

    def running(self) -> list[str]:
        """Return the names of the sweeps that have not ended, oldest first."""
        return self.database.column(f"SELECT name FROM sweeps WHERE {RUNNING} ORDER BY number")

    def template(self, name: str) -> Submission:
        """Return what each trial of a sweep submits."""
        found = self.database.record(Submission, "SELECT template FROM sweeps WHERE name = ?", name)
        assert found is not None
        return found

    def snapshots(self, repo: str) -> list[Snapshot]:
        """Return the snapshots of a repository that unfinished sweeps still need."""
        sql = f"SELECT template FROM sweeps WHERE {RUNNING} AND json_extract(template, '$.snapshot.repo') = ?"
        return [template.snapshot for template in self.database.records(Submission, sql, repo)]

    def change(self, name: str, event: str, **changes: Any) -> Sweep:
        """Set fields of a sweep, and record what happened."""
        with self.database.transaction():
            after = msgspec.structs.replace(self.require(name), **changes)
            self.database.execute(
                "UPDATE sweeps SET status = ?, data = ? WHERE name = ?", (after.status.value, encoded(after), name)
            )
            reason = after.reason or after.closing
            told: dict[str, Any] = {"reason_code": reason and reason.code, "reason": reason and reason.text}
            self._tell(event, name, status=after.status, **told)
        return after

    def trials(self, name: str) -> list[Trial]:
        """Return the trials of a sweep by number."""
        return self.database.records(Trial, "SELECT data FROM trials WHERE sweep = ? ORDER BY number", name)

    def unfinished_trials(self, name: str) -> list[Trial]:
        """Return the trials that have not ended, by number."""
        sql = "SELECT data FROM trials WHERE sweep = ? AND finished = 0 ORDER BY number"
        return self.database.records(Trial, sql, name)

    def changing_trials(self, name: str, after: int, numbers: Iterable[int]) -> list[Trial]:
        """Return the trials that have not ended, those with these numbers, and those after a number."""
        sql = (
            "SELECT data FROM trials WHERE sweep = ? AND (finished = 0 OR number > ?"
            " OR number IN (SELECT value FROM json_each(?))) ORDER BY number"
        )
        return self.database.records(Trial, sql, name, after, encoded(list(numbers)))

    def points(self, name: str) -> list[Point]:
        """Return the values of all trials of a sweep by number."""
        sql = "SELECT json_extract(data, '$.values') FROM trials WHERE sweep = ? ORDER BY number"
        return self.database.records(Point, sql, name)

    def last_number(self, name: str) -> int:
        """Return the number of a sweep's newest trial; 0 without one."""
        return self.database.value("SELECT max(number) FROM trials WHERE sweep = ?", name) or 0

    def add_trial(self, trial: Trial) -> None:
        """Record a new trial with its values."""
        with self.database.transaction():
            self.database.execute(
                "INSERT INTO trials (id, sweep, number, finished, data) VALUES (?, ?, ?, 0, ?)",
                (f"{trial.sweep}-{trial.number}", trial.sweep, trial.number, encoded(trial)),
            )
            self._tell("sweep.trial-added", trial.sweep, run=trial.run, number=trial.number, values=trial.values)

    def change_trial(self, trial: Trial, event: str, **changes: Any) -> Trial:
        """Set fields of a trial, and record what happened."""
        with self.database.transaction():
            after = msgspec.structs.replace(trial, **changes)
            self.database.execute(
                "UPDATE trials SET finished = ?, data = ? WHERE sweep = ? AND number = ?",
                (int(after.finished), encoded(after), after.sweep, after.number),
            )
            reason = after.reason or after.beaten
            told: dict[str, Any] = {
                "reason_code": reason and reason.code,
                "reason": reason and reason.text,
                "result": after.value,
            }
            self._tell(event, after.sweep, run=after.run, number=after.number, status=after.status, **told)
        return after

    def _tell(self, kind: str, sweep: str, *, actor: str | None = None, run: str | None = None, **data: Any) -> None:
        known = {name: value for name, value in data.items() if value is not None}
        self.events.add(kind, actor=actor, run=run, data={"sweep": sweep, **known})
        self.database.changed.add(sweep)
