"""Whatever a machine sends can be stored and shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.model.api import wire
from dstack.model.text.untrusted import clean, clean_line, decimal, whole


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (b"a plain line", "a plain line"),
        ("Grüße, 世界".encode(), "Grüße, 世界"),
        (b"one \xff byte", "one \ufffd byte"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b]0;a title\x07text\x1b]8;;http://x\x1b\\", "text"),
        (b"\x1bc\x1b(Breset", "reset"),
        (b"half \x1b", "half \ufffd"),
        (b"a\0b\x08c\x7fd", "a\ufffdb\ufffdc\ufffdd"),
        ("\x9b31mC1".encode(), "\ufffd31mC1"),
        ("user\u202egnp.exe\u2066".encode(), "user\ufffdgnp.exe\ufffd"),
        (b"10%\r20%\r\nend\ttab", "10%\n20%\nend\ttab"),
    ],
)
def test_what_no_terminal_and_no_reader_should_get(sent: bytes, shown: str) -> None:
    assert clean(sent) == shown


def test_halves_of_surrogate_pairs_from_json() -> None:
    assert clean("a\udcffb\ud800") == "a\ufffdb\ufffd"


def test_a_long_text_is_cut() -> None:
    assert clean(b"x" * 100, 10) == "xxxxxxx..."
    assert clean("\u4e16".encode() * 100, 10) == "\u4e16" * 7 + "..."
    assert clean("\x1b[0m" * 10**6 + "x", 10) == ""


@given(st.binary(max_size=300) | st.text(max_size=100))
def test_anything_becomes_a_text_that_can_be_stored(sent: bytes | str) -> None:
    text = clean_line(sent, 50)

    assert len(text) <= 50
    assert wire.decode(wire.encode(text), str) == text
    assert clean_line(text, 50) == text
    assert not any(ord(char) < 32 and char != "\t" for char in text)


@pytest.mark.parametrize("text", ["", "-1", "1e9", "0x1", "NaN", "\u0663", "1" * 16, "9" * 5000, " 1", "1\n", "1_0"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number of up to 15 digits"):
        whole(text)
    with pytest.raises(ValueError, match="is not a number of up to 15 digits"):
        decimal(text)


@pytest.mark.parametrize("text", ["1.", ".5", "1e999", "inf", "1.5.5"])
def test_what_is_no_decimal(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number"):
        decimal(text)


def test_numbers() -> None:
    assert (whole("0"), whole("9" * 15), decimal("0.25"), decimal("12")) == (0, 10**15 - 1, 0.25, 12.0)
    assert whole("9" * 15) * 1024 < 2**63
