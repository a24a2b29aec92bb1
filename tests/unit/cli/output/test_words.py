"""Times that a user writes."""

from __future__ import annotations

import time

import pytest

from dstack.cli.output.words import since
from dstack.errors import UsageError
from dstack.model.text.units import seconds


def test_a_time_is_absolute_or_how_long_ago() -> None:
    assert since("1970-01-01T01:01:00+01:00") == "1970-01-01T00:01:00.000Z"
    assert abs(seconds(since("2h")) - (time.time() - 7200)) < 60


def test_longer_ago_than_any_clock_is_the_beginning() -> None:
    assert since("99999d") == "1970-01-01T00:00:00.000Z"


@pytest.mark.parametrize("text", ["", "garbage", "1e5", "2026-13-01", "-5m", "5", "99999999d", "9" * 400 + "s"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        since(text)
