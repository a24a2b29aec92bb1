"""What a job is told when its time is up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dstack.engine.lifecycle import watch
from dstack.engine.lifecycle.watch import end_in_time
from dstack.errors import HostUnreachableError
from dstack.model.job.execution import Stopped
from dstack.model.job.job import Job
from dstack.model.project.workflow import Variables, WarningSignal, Workflow

LONG_AGO = "2026-01-01T00:00:00.000Z"


class Running:
    """A job that started long ago, and the executor that runs it: `calls` are what it was told."""

    attempt = "abc"
    grace = 30

    def __init__(self, *, outcome: str = "stopping", silent: int = 0, **changes: Any) -> None:
        signal = WarningSignal(name="USR1", before="5m")
        definition = Workflow(name="job", image="b", commands=("true",), max_duration="1h", signal=signal)
        fixed: dict[str, Any] = {"id": "abc", "run": "run", "workflow": "job", "definition": definition}
        rest = {"variables": Variables(), "image": "b", "key": "k", "why": "", "submitted_at": LONG_AGO}
        self.fields = {**fixed, **rest, "started_at": LONG_AGO, **changes}
        self.calls: list[tuple[str, object]] = []
        self.outcome = outcome
        self.silent = silent
        self.executor = self.store = self.database = self

    @property
    def job(self) -> Job:
        return Job(**self.fields)

    def change(self, **changes: Any) -> None:
        self.fields |= changes

    async def warn(self, attempt: str, signal: str) -> None:
        self.calls.append(("warn", signal))

    async def synced(self) -> None:
        self.calls.append(("synced", None))

    async def observe(self, attempt: str) -> None:
        return None

    async def stop(self, grace: int | None) -> Stopped:
        self.calls.append(("stop", grace))
        if self.silent:
            self.silent -= 1
            raise HostUnreachableError("the connection broke")
        return Stopped(self.outcome)


def limited(running: Running) -> Job:
    asyncio.run(asyncio.wait_for(end_in_time(running), 10))  # type: ignore[arg-type]
    return running.job


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "ASK_AGAIN", 0.0)


def test_it_is_warned_and_then_told_to_end() -> None:
    running = Running()

    job = limited(running)

    assert running.calls == [("synced", None), ("warn", "USR1"), ("stop", 30)]
    assert (job.warned, job.expired) == (True, True)


def test_a_server_that_was_restarted_does_not_warn_it_again() -> None:
    running = Running(warned=True)

    limited(running)

    assert running.calls == [("stop", 30)]


def test_a_job_that_had_been_told_to_end_stays_expired() -> None:
    assert limited(Running(outcome="ended", warned=True, expired=True)).expired


def test_a_runner_that_does_not_answer_is_asked_again() -> None:
    running = Running(silent=2, warned=True)

    assert limited(running).expired
    assert running.calls == [("stop", 30)] * 3


@pytest.mark.parametrize("missing", ["max_duration", "started_at"])
def test_without_a_limit_or_a_start_nothing_happens(missing: str) -> None:
    running = Running()
    if missing == "started_at":
        running.change(started_at=None)
    else:
        running.change(definition=Workflow(name="job", image="b", commands=("true",)))

    limited(running)

    assert running.calls == []
