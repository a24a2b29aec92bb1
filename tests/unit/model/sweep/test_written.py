"""What a person types for a space."""

from __future__ import annotations

import pytest

from dstack.errors import UsageError
from dstack.model.project.workflow import Interval, StopEarly
from dstack.model.sweep.space import Choices
from dstack.model.sweep.written import choices, stop_early


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b,c", ("a", "b", "c")),
        ("adam", ("adam",)),
        ("1..10", Interval(min="1", max="10")),
        ("0..1:0.1", Interval(min="0", max="1", step="0.1")),
        ("1e-5..1e-1:log", Interval(min="1e-5", max="1e-1", scale="log")),
        ("-1..1", Interval(min="-1", max="1")),
        ("-.5...5:.25", Interval(min="-.5", max=".5", step=".25")),
        ("../data", ("../data",)),
        ("a..b", ("a..b",)),
        ("0.1,0.01", ("0.1", "0.01")),
        ("s3://b/a:log", ("s3://b/a:log",)),
        ("", ("",)),
    ],
)
def test_a_space(text: str, expected: Choices) -> None:
    assert choices("lr", text) == expected


@pytest.mark.parametrize(("text", "words"), [("a,,b", "empty value"), ("1..2:lin", "'lin' is neither"), (",", "empty")])
def test_no_space(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"--lr: .*{words}"):
        choices("lr", text)


def test_a_rule_to_stop_early() -> None:
    assert stop_early("median") == StopEarly(rule="median")
    assert stop_early("asha:5") == StopEarly(rule="asha", warmup=5)
    for text in ("mean", "median:", "median:x", "asha:5:5"):
        with pytest.raises(UsageError, match="is not a rule"):
            stop_early(text)
