"""Ticks become runs, each at most once, wherever the server is killed."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.engine.triggers.loop import TriggerLoop
from dstack.model.job.status import Status
from dstack.model.job.ticks import Template, TickState, TriggerRecord
from dstack.model.project.workflow import Trigger
from dstack.model.text.units import rfc3339, seconds
from dstack.model.triggers.codes import TriggerCode
from dstack.store.database import TypedConnection
from tests.unit.engine.submission.test_plan import SUBMISSION
from tests.unit.engine.submission.test_submit import World

BEGIN = seconds("2026-03-10T00:00:00Z")
TEMPLATE = Template(snapshot=SUBMISSION.snapshot, workflows=SUBMISSION.workflows, variables=SUBMISSION.variables)
RECORD = TriggerRecord(
    name="nightly",
    uid="0123456789abcdef",
    owner="ann",
    definition=Trigger(name="nightly", workflow="top", cron="0 2 * * *"),
    timezone="UTC",
    repo="r",
    template=TEMPLATE,
    applied_at=rfc3339(BEGIN),
    position=BEGIN,
)
HOUR, DAY = 3600.0, 86400.0


class Triggered(World):
    """A server with one trigger, and a clock that the test sets."""

    def __init__(self, home: Path, **changes: Any) -> None:
        super().__init__(home)
        definition = replace(RECORD.definition, **changes)
        if self.store.triggers.get("nightly") is None:
            self.store.triggers.put(replace(RECORD, definition=definition), "trigger.added")
        self.restart()

    def restart(self) -> None:
        self.loop = TriggerLoop(self.engine.context, self.engine)
        self.loop.ticks.submitter = self.submitter

    def at(self, now: float) -> None:
        """Let the loop look at this time, and do what follows."""
        self.loop.next["nightly"] = 0.0
        self.loop.apart = now - time.monotonic()
        self.loop.look(now)
        asyncio.run(self.loop.ticks.drive("nightly"))

    def end(self, run: str, status: Status = Status.DONE) -> None:
        for job in self.store.jobs.of(run):
            self.store.jobs.change(job.id, status=status, exit_code=0, finished_at=rfc3339(BEGIN))

    @property
    def record(self) -> TriggerRecord:
        return self.store.triggers.require("nightly")

    def states(self) -> list[tuple[str, str]]:
        """The ticks, oldest first: the day and hour, and the state."""
        return [(tick.at[8:13], tick.state.value) for tick in self.store.triggers.ticks("nightly", 99)[::-1]]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.store.events.select() if event.kind.startswith("trigger.")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Triggered]:
    made = Triggered(tmp_path)
    yield made
    made.store.close()


def test_a_time_starts_one_run_of_the_owner(world: Triggered) -> None:
    world.at(BEGIN + HOUR)
    assert world.runs == []

    world.at(BEGIN + 2 * HOUR + 1)
    world.at(BEGIN + 2 * HOUR + 2)

    (name,) = world.runs
    run = world.store.runs.require(name)
    assert (run.trigger, run.user, run.workflow) == ("nightly", "ann", "top")
    assert world.states() == [("10T02", "submitted")]
    assert world.kinds() == ["trigger.added", "trigger.due", "trigger.ticked"]
    ticked = next(event for event in world.store.events.select() if event.kind == "trigger.ticked")
    assert (ticked.run, ticked.actor, ticked.data["name"]) == (name, "server", "nightly")


def test_how_a_run_ended_is_noted(world: Triggered) -> None:
    world.at(BEGIN + 2 * HOUR)
    world.end(world.runs[0], Status.FAILED)
    world.at(BEGIN + 3 * HOUR)

    (tick,) = world.store.triggers.ticks("nightly", 9)
    assert (tick.state, tick.result, world.record.failures) == (TickState.ENDED, "failed", 1)
    assert world.kinds()[-1] == "trigger.ended"


@pytest.mark.parametrize("rule", ["skip", "queue", "replace", "allow"])
def test_the_next_time_comes_while_the_run_goes_on(tmp_path: Path, rule: str) -> None:
    world = Triggered(tmp_path, overlap=rule)
    world.at(BEGIN + 2 * HOUR)
    first = world.runs[0]

    world.at(BEGIN + DAY + 2 * HOUR)

    expected = {"skip": "skipped", "queue": "waiting", "replace": "submitted", "allow": "submitted"}[rule]
    assert world.states()[1] == ("11T02", expected)
    assert len(world.runs) == (1 if rule in ("skip", "queue") else 2)
    stopped = [job.stop for job in world.store.jobs.of(first)]
    assert all(stop == ("stop" if rule == "replace" else None) for stop in stopped)
    world.end(first)
    world.at(BEGIN + DAY + 3 * HOUR)
    assert len(world.runs) == (1 if rule == "skip" else 2)
    world.store.close()


@pytest.mark.parametrize(("rule", "runs"), [("last", ["12T02"]), ("skip", []), ("all", ["10T02", "11T02", "12T02"])])
def test_down_for_three_days(tmp_path: Path, rule: str, runs: list[str]) -> None:
    world = Triggered(tmp_path, missed=rule)

    made: list[str] = []
    for minute in range(6):
        world.at(BEGIN + 2.5 * DAY + minute * 60)
        made += [run for run in world.runs if run not in made]
        for run in made:
            world.end(run)

    ran = [tick.at[8:13] for tick in world.store.triggers.ticks("nightly", 9)[::-1] if tick.run]
    assert ran == runs
    assert len(made) == len(runs)
    assert world.record.position == BEGIN + 2 * DAY + 2 * HOUR
    world.store.close()


def test_max_failures_pause_and_say_so(tmp_path: Path) -> None:
    world = Triggered(tmp_path, max_failures=2)
    for day in range(3):
        world.at(BEGIN + day * DAY + 2 * HOUR)
        for run in world.runs:
            world.end(run, Status.FAILED)
    world.at(BEGIN + 3 * DAY)

    assert len(world.runs) == 2
    assert world.record.paused
    assert world.record.paused.code == TriggerCode.MAX_FAILURES
    assert "trigger.paused" in world.kinds()
    assert not world.store.triggers.active
    world.store.close()


def test_what_can_not_be_submitted_fails_and_goes_on_at_the_next_time(world: Triggered) -> None:
    world.store.runners.remove("box")
    world.at(BEGIN + 2 * HOUR)
    (tick,) = world.store.triggers.ticks("nightly", 9)
    assert tick.state is TickState.FAILED
    assert tick.why
    assert tick.why.code == "no-runner-known"
    assert world.record.failures == 1

    world.at(BEGIN + DAY + 2 * HOUR)

    assert world.states() == [("10T02", "failed"), ("11T02", "failed")]


def test_a_clock_that_jumps_runs_no_time_twice(world: Triggered) -> None:
    for now in (2 * HOUR, 1 * HOUR, 2 * HOUR + 5, DAY * 1.5, 2 * HOUR, 3 * HOUR, DAY + 2 * HOUR, DAY + 3 * HOUR):
        world.at(BEGIN + now)
        for run in world.runs:
            world.end(run)

    assert sorted(world.states()) == [("10T02", "ended"), ("11T02", "ended")]
    assert len(world.runs) == 2


class Killed(BaseException):
    """The server is killed here."""


def test_killed_at_every_step_it_submits_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement of a tick may be the last one."""
    execute = TypedConnection.execute
    left = -1

    def counted(self: TypedConnection, *given: Any) -> sqlite3.Cursor:
        nonlocal left
        if left == 0 and str(given[0]) != "ROLLBACK":
            raise Killed
        left -= 1
        return execute(self, *given)

    monkeypatch.setattr(TypedConnection, "execute", counted)
    step, finished = 0, False
    while not finished:
        world = Triggered(tmp_path / str(step), overlap="replace")
        world.at(BEGIN + 2 * HOUR)
        left = step
        try:
            world.at(BEGIN + DAY + 2 * HOUR)
            finished = True
        except Killed:
            finished = False
        left = -1
        world.store.runners.remove("box")
        world.store.close()
        again = Triggered(tmp_path / str(step))
        again.loop.refresh()
        again.at(BEGIN + DAY + 2 * HOUR + 7)
        again.at(BEGIN + DAY + 2 * HOUR + 8)
        assert len(again.runs) == 2, f"after {step} statements"
        assert again.states()[1] == ("11T02", "submitted"), f"after {step} statements"
        first = again.store.runs.newest(9)[-1]
        assert all(job.stop == "stop" for job in again.store.jobs.of(first.name)), f"after {step} statements"
        again.store.close()
        step += 1
    assert step > 15


def test_a_thousand_triggers_cost_little(tmp_path: Path) -> None:
    world = Triggered(tmp_path)
    for number in range(1000):
        world.store.triggers.put(replace(RECORD, name=f"t{number}", uid=f"u{number}", position=time.time()))
    world.loop.refresh()
    reads: list[str] = []
    world.store.database.conn.set_trace_callback(reads.append)

    for _ in range(100):
        world.loop.look(time.time())
        assert 0 < world.loop.pause() <= 5

    assert len(reads) <= 500, "the loop reads no trigger that is not due"
    world.store.close()
