"""What a terminal shows of a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.cli.output.log_text import colours, newest, shown

RED, BOLD, OFF = "\x1b[31m", "\x1b[1m", "\x1b[0m"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain", "plain"),
        ("\ttabs stay", "\ttabs stay"),
        ("  0%|    |\r 50%|██  |\r100%|████|", "100%|████|"),  # tqdm
        ("\r  0%\r 50%\r100%", "100%"),
        ("10%\r20%\r", "20%"),  # the carriage return last
        ("100%\r        \r", "100%"),  # tqdm with leave=False
        ("100%\r\x1b[K", "100%"),
        ("\x1b[2K\r  Downloading 3/4\x1b[2K\r  Installed", "  Installed"),
        ("1/3\b\b\b2/3\b\b\b3/3", "3/3"),  # Keras
        ("|\b/\b-\b\\", "\\"),
        ("\b\bx", "x"),
        ("\x1b[?25lhidden\x1b[?25h", "hidden"),
        ("bar 1\x1b[A\x1b[1Gup", "bar 1up"),  # a second bar of tqdm moves up
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(Bx\x0f", "x"),
        ("cut \x1b", "cut "),
        ("cut \x1b[31", "cut "),
        ("cut \x1b]0;title", "cut "),
        ("日本\r語", "語"),
        ("\r\r\r", ""),
        (f"{RED}red", f"{RED}red{OFF}"),
        (f"{RED}red{OFF}", f"{RED}red{OFF}"),
        (f"{RED}red\x1b[m", f"{RED}red\x1b[m"),
        (f"{RED}1\r2", f"{RED}2{OFF}"),
    ],
)
def test_a_line_is_what_is_seen_at_last(text: str, line: str) -> None:
    assert shown(text) == line


def test_colours_of_the_line_before_go_on_and_end_with_the_line() -> None:
    before = colours(f"{RED}{BOLD}one")

    assert before == RED + BOLD
    assert shown("two", before) == f"{RED}{BOLD}two{OFF}"
    assert colours(f"two{OFF}", before) == ""
    assert colours(f"{OFF}{RED}", before) == RED


PARTS = st.lists(st.sampled_from(["a", "b", " ", "\r", "\b", "\x1b[K", RED, OFF]), max_size=15).map("".join)


@given(PARTS, PARTS)
def test_dropping_what_was_overwritten_changes_nothing(text: str, later: str) -> None:
    kept, before = newest(text)

    assert shown(kept + later, before) == shown(text + later)


@given(st.text(max_size=60))
def test_only_colours_are_left_of_any_text(text: str) -> None:
    line = shown(f"\x1b{text}\r\x1b[31m{text}")

    assert not {"\r", "\b", "\n", "\x07"} & set(line.replace("\n", ""))
    assert line.count("\x1b") == line.count("\x1b[")
