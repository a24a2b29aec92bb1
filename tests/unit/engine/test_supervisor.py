"""No task dies silently: it is tried again, and what fails is told until it works."""

from __future__ import annotations

import asyncio
import errno
import logging

import pytest

from dstack.engine import supervisor as module
from dstack.engine.supervisor import LONGEST_PAUSE, WELL, Supervisor
from dstack.errors import ErrorCode, StateBusyError


class Clock:
    """Time that passes by sleeping only."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(module.asyncio, "sleep", self.sleep)
        monkeypatch.setattr(module.random, "uniform", lambda low, high: 1.0)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Work:
    """Fails with these errors, one after the other; then it succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_task_that_fails_is_tried_again_with_growing_pauses(clock: Clock) -> None:
    tasks = Supervisor()

    asyncio.run(tasks.keep("sampling", Work(*(ValueError("bad") for _ in range(9)))))

    assert clock.pauses == [0.25, 0.5, 1, 2, 4, 8, *[LONGEST_PAUSE] * 3]
    assert tasks.current() == {}


def test_what_fails_is_told_with_a_count_and_since_when(clock: Clock) -> None:
    tasks = Supervisor()
    asyncio.run(tasks.attempt("sampling", Work(ValueError("bad"))))
    since = tasks.current()["sampling"].since

    asyncio.run(tasks.attempt("sampling", Work(StateBusyError("locked"))))

    told = tasks.current()["sampling"]
    assert (told.count, told.since, told.words) == (2, since, "locked")
    assert tasks.resting("sampling") is told
    clock.now += WELL + 1
    assert (tasks.current(), tasks.resting("sampling")) == ({}, None)


def test_a_task_that_ran_well_for_long_starts_anew(clock: Clock) -> None:
    tasks = Supervisor()
    asyncio.run(tasks.keep("sampling", Work(*(ValueError("bad") for _ in range(7)))))
    clock.pauses.clear()
    clock.now += WELL + 1

    asyncio.run(tasks.keep("sampling", Work(ValueError("bad"))))

    assert clock.pauses == [0.25]


def test_a_kind_of_failure_is_logged_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    errors = [ValueError("bad")] * 9 + [StateBusyError("locked for 1 s"), StateBusyError("locked for 2 s")]

    with caplog.at_level(logging.INFO, "dstack.engine"):
        asyncio.run(Supervisor().keep("sampling", Work(*errors)))

    said = [record.getMessage().partition("; failed")[0] for record in caplog.records]
    internal = "sampling: internal error in dstack: ValueError('bad')"
    assert said == [internal, "sampling: locked for 1 s", "sampling: it works again; it had failed (11)"]
    assert caplog.records[0].exc_info
    assert not caplog.records[1].exc_info


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_known_wherever_it_is_met(clock: Clock, number: int) -> None:
    tasks = Supervisor()

    asyncio.run(tasks.attempt("sampling", Work(OSError(number, "full", "/x"))))

    assert tasks.current()["sampling"].error.code == ErrorCode.SERVER_DISK_FULL  # type: ignore[attr-defined]


def test_a_task_ends_at_once_when_it_is_cancelled() -> None:
    tasks = Supervisor()

    async def cancelled() -> None:
        tasks.start("forever", lambda: asyncio.Event().wait())
        tasks.start("failing", Work(*(ValueError("bad") for _ in range(100))))
        await asyncio.sleep(0.05)
        for task in tasks.running.copy():
            task.cancel()
        await asyncio.gather(*tasks.running, return_exceptions=True)
        assert tasks.running == set()

    asyncio.run(asyncio.wait_for(cancelled(), 5))
