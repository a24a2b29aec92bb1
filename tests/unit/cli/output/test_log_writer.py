"""Logs on stdout: raw, prefixed, chosen."""

from __future__ import annotations

import re

import pytest

from dstack.cli.output import show
from dstack.cli.output.log_writer import LogWriter
from dstack.cli.output.screen import SCREEN
from dstack.model.api.runs import Event
from tests.unit.cli.output.conftest import Watched


def event(job: str, workflow: str, time: str = "2026-01-31T12:00:00.000Z") -> Event:
    return Event(event="log", id=job, workflow=workflow, offset=0, time=time)


def test_one_job_is_raw(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter()

    writer.log(event("1", "train"), b"a\0b\r\xff")
    writer.finish("1", "train")

    assert capfdbinary.readouterr().out == b"a\0b\r\xff"


def test_several_jobs_are_prefixed_by_whole_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter({"1": "a", "2": "b"})

    writer.log(event("1", "a"), b"one\ntw")
    writer.log(event("2", "b"), b"x\n")
    writer.log(event("1", "a"), b"o\nthree")
    writer.finish("1", "a")
    writer.close()

    assert capfdbinary.readouterr().out == b"a | one\nb | x\na | two\na | three\n"


def test_a_line_without_end_is_printed_in_pieces(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter({"1": "a", "2": "b"})

    writer.log(event("1", "a"), b"x" * 70000)

    assert capfdbinary.readouterr().out == b"a | " + b"x" * 70000 + b"\n"


def test_tail_keeps_the_last_lines_of_each_job(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter({"1": "a", "2": "b"}, tail=1)
    writer.log(event("1", "a"), b"1\n2\n")
    writer.log(event("2", "b"), b"3\n4\n")
    assert capfdbinary.readouterr().out == b""

    writer.release()
    writer.log(event("1", "a"), b"5\n")

    assert capfdbinary.readouterr().out == b"a | 2\nb | 4\na | 5\n"


def test_tail_of_one_job_goes_on_raw(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(tail=1)
    writer.log(event("1", "a"), b"1\n2\npart")

    writer.release()
    writer.log(event("1", "a"), b"ial")

    assert capfdbinary.readouterr().out == b"2\npartial"


def test_timestamps_and_pattern(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(timestamps=True, pattern=re.compile(rb"loss"))

    writer.log(event("1", "a"), b"loss 1\nother\nlo")
    writer.log(event("1", "a", "2026-01-31T12:00:01.000Z"), b"ss 2\n")

    assert capfdbinary.readouterr().out == (b"2026-01-31T12:00:00.000Z loss 1\n2026-01-31T12:00:00.000Z loss 2\n")


TQDM = [f"\r{percent:3d}%|{'█' * (percent // 10):<10}| {percent}/100".encode() for percent in range(0, 101, 25)]
TWO = {"1": "prep", "2": "train"}


def at(second: int) -> str:
    return f"2026-01-31T12:00:{second:02d}.000Z"


def test_in_a_file_a_bar_is_its_last_state(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(TWO)

    for state in TQDM:
        writer.log(event("1", "prep"), state)
    writer.log(event("1", "prep"), b"\nnext\r\n")

    assert capfdbinary.readouterr().out.decode() == "prep | 100%|██████████| 100/100\nprep | next\r\n"


def test_in_a_file_a_long_bar_has_a_line_now_and_then(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(TWO)

    for second in range(0, 60):
        writer.log(event("2", "train", at(second)), f"\rstep {second}".encode())
    said = capfdbinary.readouterr().out.decode().splitlines()
    writer.finish("2", "train")

    assert said == [f"train | step {second}" for second in (10, 20, 30, 40, 50)]
    assert capfdbinary.readouterr().out == b"train | step 59\n"


def test_every_text_that_was_overwritten_can_be_searched(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(pattern=re.compile(rb"loss"))

    for data in (b"\rloss 1\rother", b"\rlo", b"ss 2\r", b"\nloss 3\r\n\r\nloss 4\r"):
        writer.log(event("1", "train"), data)
    writer.finish("1", "train")

    assert capfdbinary.readouterr().out == b"loss 1\nloss 2\r\nloss 3\r\nloss 4"


def test_a_bar_of_many_hours_takes_no_memory(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(TWO)

    for number in range(2_000):
        writer.log(event("1", "prep"), b"\r%d" % number)
    writer.finish("1", "prep")

    assert capfdbinary.readouterr().out == b"prep | 1999\n"


def test_a_timestamp_is_not_overwritten(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(timestamps=True)

    writer.log(event("1", "train"), b"\r50%\r100%\n")

    assert capfdbinary.readouterr().out == b"2026-01-31T12:00:00.000Z 100%\n"


def test_on_a_terminal_open_lines_are_painted_over_with_their_labels(terminal: Watched) -> None:
    writer = LogWriter(TWO)

    for state in TQDM[:3]:
        writer.log(event("1", "prep"), state)
        writer.log(event("2", "train"), b"loss \x1b[31m1.5")
    half = terminal()
    writer.log(event("2", "train"), b" at step 7\nepoch")
    line = terminal()
    writer.log(event("1", "prep"), TQDM[-1] + b"\n")
    writer.close()

    assert half == ["prep  |  50%|█████     | 50/100", "train | loss 1.5loss 1.5loss 1.5"]
    assert line == ["train | loss 1.5loss 1.5loss 1.5 at step 7", half[0], "train | epoch"]
    assert terminal() == [line[0], "prep  | 100%|██████████| 100/100", "train | epoch"]


def test_own_lines_go_above_the_open_ones_and_have_no_colour_of_a_log(terminal: Watched) -> None:
    writer = LogWriter(TWO)
    writer.log(event("1", "prep"), b"\x1b[31mred\nstill red")

    show.say("prep: a line of dstack's own")

    assert terminal() == ["prep  | red", "prep: a line of dstack's own", "prep  | still red"]
    assert b"still red\x1b[0m" in terminal.seen.getvalue()
    assert b"red\x1b[0m\n" in terminal.seen.getvalue()


def test_a_log_of_one_job_gets_its_colour_back_after_a_line_of_dstack(terminal: Watched) -> None:
    writer = LogWriter()

    writer.log(event("1", "train"), b"\x1b[?25l\x1b[31mred, ")
    show.say("a warning")
    writer.log(event("1", "train"), b"red again")
    SCREEN.close()

    assert terminal() == ["red,", "a warning", "red again"]
    assert terminal.seen.getvalue().decode() == (
        "\x1b[?25l\x1b[31mred, \x1b[0m\na warning\n\x1b[31mred again\x1b[0m\x1b[?25h"
    )


def test_a_plain_log_of_one_job_is_not_touched_on_a_terminal(terminal: Watched) -> None:
    data = b"one\r\n" + b"".join(TQDM) + b"\n\x1b[32mgreen\x1b[0m\n\0\xff\n"

    LogWriter().log(event("1", "train"), data)
    SCREEN.close()

    assert terminal.seen.getvalue() == data


@pytest.mark.parametrize("terminal", [40, 80, 200], indirect=True)
def test_no_open_line_is_wrapped(terminal: Watched) -> None:
    writer = LogWriter(TWO)
    wide = "学習中" * 60

    for text in (wide, "x" * 300, "\t" * 50 + "x", "é" * 300, "🚀" * 150, "⚠️" * 150, "\v\x9b2J\x07" * 90):
        writer.log(event("1", "prep"), f"\r{text}".encode())
        writer.log(event("2", "train"), b"\r\x1b[32m" + text.encode())
        SCREEN.status("preparing " * 40)

        first, second, third = terminal()
        assert (first[:7], second[:7], third[2:11]) == ("prep  |", "train |", "preparing")
        assert max(len(line) for line in (first, second, third)) < terminal.columns
    assert len(third) == terminal.columns - 3


def test_after_ctrl_z_what_the_shell_printed_stays(terminal: Watched) -> None:
    writer = LogWriter(TWO)
    for job, workflow in TWO.items():
        writer.log(event(job, workflow), b"50%")
    terminal.stream.write("^Z\n[1]+  Stopped\n$ fg\ndstack run train\n")

    SCREEN.resumed()
    writer.log(event("1", "prep"), b"\r60%")

    assert terminal()[2:] == ["[1]+  Stopped", "$ fg", "dstack run train", "prep  | 60%", "train | 50%"]
