"""Which times run after the server was down, and what overlaps."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from dstack.model.triggers.cron import Cron
from dstack.model.triggers.decide import MOST, Act, Due, due, overlap

DAY = 86400.0
NOON = datetime(2026, 3, 10, 12, tzinfo=timezone.utc).timestamp()
NIGHTLY = Cron("0 2 * * *")
NIGHTS = [NOON - 10 * 3600 - days * DAY for days in (2, 1, 0)]


def test_a_time_that_has_come_runs_whatever_the_rule() -> None:
    for rule in ("last", "skip", "all"):
        assert due(NIGHTLY, NIGHTS[1], NIGHTS[2] + 1, rule, None) == Due((NIGHTS[2],), None, NIGHTS[2])
        assert due(NIGHTLY, NIGHTS[2], NIGHTS[2] + 1, rule, None) == Due((), None, NIGHTS[2])


@pytest.mark.parametrize(
    ("rule", "deadline", "run", "skipped"),
    [
        ("last", None, NIGHTS[2:], None),
        ("skip", None, [], NIGHTS[2]),
        ("all", None, NIGHTS, None),
        ("all", 36 * 3600.0, NIGHTS[1:], NIGHTS[0]),
        ("last", 3600.0, [], NIGHTS[2]),
    ],
)
def test_down_for_three_days(rule: str, deadline: float | None, run: list[float], skipped: float | None) -> None:
    found = due(NIGHTLY, NOON - 3 * DAY, NOON, rule, deadline)

    assert found == Due(tuple(run), skipped, NIGHTS[2])


def test_what_is_made_up_for_is_bounded() -> None:
    found = due(Cron("* * * * *"), 0, NOON, "all", None)

    assert found.times[-1] == found.position == NOON
    assert len(found.times) <= MOST + 1
    assert found.skipped == found.times[0] - 60


def test_a_clock_that_is_set_back_takes_the_schedule_along() -> None:
    ahead = due(NIGHTLY, NOON, NOON + 400 * DAY, "last", None)
    assert len(ahead.times) == 1

    back = due(NIGHTLY, ahead.position, NOON, "last", None)

    assert back == Due((), None, NOON)
    assert due(NIGHTLY, NOON, NOON - 30, "last", None) == Due((), None, NOON)


@pytest.mark.parametrize(
    ("rule", "running", "made_up", "act"),
    [
        *(
            (rule, [], made_up, Act.SUBMIT)
            for rule in ("skip", "queue", "replace", "allow")
            for made_up in (True, False)
        ),
        ("skip", ["otter"], False, Act.SKIP),
        ("queue", ["otter"], False, Act.WAIT),
        ("replace", ["otter"], False, Act.REPLACE),
        ("allow", ["otter"], False, Act.SUBMIT),
        ("skip", ["otter"], True, Act.WAIT),
        ("allow", ["otter"], True, Act.SUBMIT),
    ],
)
def test_what_overlaps(rule: str, running: list[str], made_up: bool, act: Act) -> None:
    assert overlap(rule, running, made_up=made_up) is act
