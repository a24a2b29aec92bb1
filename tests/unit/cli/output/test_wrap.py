"""Long sentences are broken between words, commands never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.cli.output.wrap import paragraph, wrap

COMMAND = "dstack runners remove --force lab-a100-in-the-cellar"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("one two three four five six seven", ["one two three four five", "six seven"]),
        ("", [""]),
        ("first\n\nsecond", ["first", "", "second"]),
        (f"it is gone; type `{COMMAND}` now", ["it is gone; type", f"`{COMMAND}`", "now"]),
        (f"to remove it, type this: {COMMAND}", ["to remove it, type this:", COMMAND]),
        (f"hint: {COMMAND}, then the same again", [f"hint: {COMMAND}, then the same again"]),
        (f"  fix: {COMMAND}", [f"  fix: {COMMAND}"]),
        ("the folder '/data/my own models/a' is missing", ["the folder", "'/data/my own models/a'", "is missing"]),
        ("the server's key isn't there, is it", ["the server's key isn't", "there, is it"]),
        ("/a/path/that/is/longer/than/the/line is it", ["/a/path/that/is/longer/than/the/line", "is it"]),
    ],
)
def test_where_lines_end(text: str, lines: list[str]) -> None:
    assert paragraph(text, 24).split("\n") == lines


@given(st.text(st.sampled_from("ab `':/-é"), max_size=80), st.integers(0, 60))
def test_no_word_is_lost_or_changed(text: str, width: int) -> None:
    assert " ".join(wrap(text, width)).split() == text.split()
