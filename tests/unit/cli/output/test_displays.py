"""Logs as JSON: no character is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dstack.cli.output.displays import whole_characters


@given(st.text(), st.integers(0, 20))
def test_no_character_is_cut(text: str, at: int) -> None:
    data = text.encode("utf-8", "surrogatepass" if not text.isprintable() else "strict")
    first, rest = whole_characters(data[:at])

    assert first + rest == data[:at]
    assert len(rest) < 4
    if text.isprintable():
        first.decode()


@given(st.binary(max_size=40))
def test_nothing_is_lost_of_other_bytes(data: bytes) -> None:
    first, rest = whole_characters(data)

    assert first + rest == data
    assert len(rest) < 4
