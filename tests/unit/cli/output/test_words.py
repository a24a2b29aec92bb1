"""Times that a user writes and reads."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from dstack.cli.output.words import local, since
from dstack.errors import UsageError
from dstack.model.text.units import rfc3339, seconds


def test_a_time_is_absolute_or_how_long_ago() -> None:
    assert since("1970-01-01T01:01:00+01:00") == "1970-01-01T00:01:00.000Z"
    assert abs(seconds(since("2h")) - (time.time() - 7200)) < 60


def test_longer_ago_than_any_clock_is_the_beginning() -> None:
    assert since("99999d") == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("text", ["", "garbage", "1e5", "2026-13-01", "-5m", "5", "99999999d", "9" * 400 + "s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        since(text)


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone two hours ahead of UTC."""
    monkeypatch.setenv("TZ", "XXX-2")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("zone")
def test_moments_in_a_reason_are_shown_in_the_users_time_zone() -> None:
    now = time.time()
    clock, text = time.strftime("%H:%M:%S", time.gmtime(now + 7200)), f"not since {rfc3339(now)}: no answer"

    assert local(text) == f"not since {clock}: no answer"
    assert local("since 2026-01-31T23:30:00Z") == "since 2026-02-01 01:30:00"
    assert local("2026-01-31T23:30:00.123Z; 2026-01-31T00:00:00Z") == "2026-02-01 01:30:00; 2026-01-31 02:00:00"


@pytest.mark.parametrize("text", ["", "exit code 3", "run 2026-01-31", "T12:00:00Z", "12026-01-31T12:00:00Zulu"])
def test_other_text_stays(text: str) -> None:
    assert local(text) == text
