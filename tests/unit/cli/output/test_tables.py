"""Tables fit a terminal, one row for each item."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.cli.commands.runs.command import COLUMNS, SPARE
from dstack.cli.output.cells import cut, width
from dstack.cli.output.tables import lay_out

REASON = "train: pulling registry.example.org/team/trainer:2.4 failed: the registry has no such image: manifest unknown"
FAILED = ("brave-otter-7", "train", "failed", "ada", "5m ago", "1m 12s", "125", "lab1", "", REASON)
DONE = ("calm-ant-12", "encode-dataset", "done", "ada", "2026-01-31", "2h 5m", "0", "lab1, lab2", "best", "")


def lines(table: list[list[str]]) -> list[str]:
    return ["  ".join(row).rstrip() for row in table]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (
            79,
            [
                "NAME           WORKFLOW        STATUS  EXIT  RUNNER      TAG   REASON",
                "brave-otter-7  train           failed  125   lab1              train: pulling …",
                "calm-ant-12    encode-dataset  done    0     lab1, lab2  best",
            ],
        ),
        (
            39,
            [
                "NAME           WORKF…  STATUS  EXIT",
                "brave-otter-7  train   failed  125",
                "calm-ant-12    encod…  done    0",
            ],
        ),
    ],
)
def test_a_narrow_terminal_shows_one_row_for_each_run(columns: int, expected: list[str]) -> None:
    assert lines(lay_out(COLUMNS, [FAILED, DONE], columns, SPARE)) == expected


def test_a_wide_terminal_and_a_file_show_everything() -> None:
    wide = lines(lay_out(COLUMNS, [FAILED, DONE], 220, SPARE))

    assert wide == lines(lay_out(COLUMNS, [FAILED, DONE], None, SPARE))
    assert REASON in wide[1]
    assert "ada" in wide[1]


def test_an_empty_column_takes_no_room_on_a_terminal() -> None:
    assert lines(lay_out(("A", "B", "C"), [("1", "", "2")], 80)) == ["A  C", "1  2"]
    assert lines(lay_out(("A", "B", "C"), [("1", "", "2")])) == ["A  B  C", "1     2"]


def test_names_are_not_cut() -> None:
    name = "a-very-long-name-for-a-run-that-somebody-gave-it"

    assert lines(lay_out(("NAME", "WORKFLOW"), [(name, "x" * 40)], 60))[1] == f"{name}  {'x' * 9}…"
    assert lines(lay_out(("NAME", "WORKFLOW"), [(name, "x" * 40)], 20))[1] == f"{name[:19]}…"


CELL = st.text(alphabet="ab 学🚀é", max_size=40)


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=4), st.integers(1, 120))
def test_no_row_is_wider_than_the_terminal(rows: list[tuple[str, ...]], columns: int) -> None:
    table = lay_out(("A", "BEE", "C", "D"), rows, columns, ("C", "BEE"))

    assert max(map(width, lines(table))) <= columns
    assert len(table) == len(rows) + 1


@pytest.mark.parametrize(
    ("text", "cells", "shown"),
    [
        ("four", 4, "four"),
        ("fives", 4, "fiv…"),
        ("学習", 4, "学習"),
        ("学習中", 4, "学…"),
        ("学習中", 5, "学習…"),
        ("\x1b[31mfives\x1b[0m", 4, "\x1b[31mfiv…\x1b[0m"),
        ("\x1b[31mfour\x1b[0m", 4, "\x1b[31mfour\x1b[0m"),
        ("x", 0, ""),
    ],
)
def test_cutting(text: str, cells: int, shown: str) -> None:
    assert cut(text, cells) == shown
