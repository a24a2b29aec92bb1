"""Logs on stdout: raw, prefixed, chosen."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack.cli.output.displays import LogWriter, whole_characters
from dstack.model.api.runs import Event


def event(job: str, workflow: str, time: str = "2026-01-31T12:00:00.000Z") -> Event:
    return Event(event="log", id=job, workflow=workflow, offset=0, time=time)


def test_one_job_is_raw(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter()

    writer.log(event("1", "train"), b"a\0b\r\xff")
    writer.finish("1", "train")

    assert capfdbinary.readouterr().out == b"a\0b\r\xff"


def test_several_jobs_are_prefixed_by_whole_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(["a", "b"])

    writer.log(event("1", "a"), b"one\ntw")
    writer.log(event("2", "b"), b"x\n")
    writer.log(event("1", "a"), b"o\nthree")
    writer.finish("1", "a")
    writer.close()

    assert capfdbinary.readouterr().out == b"a | one\nb | x\na | two\na | three\n"


def test_a_line_without_end_is_printed_in_pieces(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(["a", "b"])

    writer.log(event("1", "a"), b"x" * 70000)

    assert capfdbinary.readouterr().out == b"a | " + b"x" * 70000 + b"\n"


def test_tail_keeps_the_last_lines_of_each_job(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    writer = LogWriter(["a", "b"], tail=1)
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
