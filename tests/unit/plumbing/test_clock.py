"""Moments have a time of day that does not flicker, and follows a clock that is set."""

from __future__ import annotations

import time

import pytest

from dstack.plumbing.clock import WallClock, steady


def test_a_moment_keeps_its_time_of_day_until_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a moment
    clock, then, real = WallClock(), steady() - 60, time.time
    at = clock.at(then)
    assert abs(at - (real() - 60)) < 1

    # When the clock is adjusted, its time of day stays; when the clock is set, it follows
    monkeypatch.setattr(time, "time", lambda: real() + 0.3)
    assert clock.at(then) == at
    monkeypatch.setattr(time, "time", lambda: real() - 7200)
    assert abs(clock.at(then) - (real() - 7260)) < 1
