"""The log's size is the offset; an index beside it records when bytes arrived."""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path

import pytest

from dstack.errors import DiskFullError
from dstack.model.paths import ServerLayout
from dstack.model.runner.metrics import Point
from dstack.model.text.units import seconds
from dstack.plumbing import space
from dstack.plumbing.space import Space
from dstack.store import logs as module
from dstack.store.logs import Logs, chunks
from tests.unit.syncs import Syncs


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    return now


@pytest.fixture
def logs(tmp_path: Path) -> Logs:
    layout = ServerLayout(tmp_path)
    layout.logs.mkdir(parents=True)
    return Logs(layout)


def test_chunks_carry_the_time_of_their_arrival(logs: Logs, clock: list[float]) -> None:
    logs.append("a", b"one\n")
    clock[0] += 60
    logs.append("a", b"two\n")
    logs.append("a", b"three\n")

    found = list(chunks(logs, "a", 0, 1 << 20))

    assert [(offset, seconds(at), data) for offset, at, data in found] == [
        (0, 1000.0, b"one\n"),
        (4, 1060.0, b"two\nthree\n"),
    ]


@pytest.mark.parametrize("offset", range(15))
def test_chunks_from_any_offset_give_the_rest(logs: Logs, clock: list[float], offset: int) -> None:
    whole = b""
    for number in range(5):
        clock[0] += 1
        data = bytes([number]) * 3
        logs.append("a", data)
        whole += data

    assert b"".join(data for _, _, data in chunks(logs, "a", offset, 2)) == whole[offset:]


def test_since_finds_the_first_byte_that_is_young_enough(logs: Logs, clock: list[float]) -> None:
    for _ in range(4):
        clock[0] += 10
        logs.append("a", b"x" * 5)

    assert [logs.begins("a", at) for at in (0, 1010, 1011, 1030, 1041)] == [0, 0, 5, 10, 20]


def test_a_half_written_index_record_is_not_read(logs: Logs, clock: list[float]) -> None:
    logs.append("a", b"one")
    with logs.layout.log("a").with_suffix(".times").open("ab") as index:
        index.write(b"\x01\x02")

    assert [data for _, _, data in chunks(logs, "a", 0, 100)] == [b"one"]


def test_no_log_is_an_empty_log(logs: Logs) -> None:
    assert logs.size("none") == 0
    assert logs.read("none", 0, 10) == b""
    assert list(chunks(logs, "none", 0, 10)) == []


@pytest.mark.parametrize("more", [b"", b"\n"])
def test_an_incomplete_sample_does_not_hide_those_after_it(logs: Logs, more: bytes) -> None:
    points = [Point(time=number, cpu=0.5, memory=1) for number in range(3)]
    logs.add_usage("a", points[0])
    with logs.layout.metrics("a").open("ab") as file:
        file.write(b'{"time":7,"cp' + more)

    logs.add_usage("a", points[1])
    logs.add_usage("a", points[2])

    assert logs.usage("a") == [points[0], *([points[1]] if more else []), points[2]]
    assert logs.usage("none") == []


def test_arrivals_of_bytes_that_a_power_cut_took_are_forgotten(logs: Logs, clock: list[float]) -> None:
    # Given two lines, of which only the first survives, and half of a third record
    logs.append("a", b"one\n")
    clock[0] += 60
    logs.append("a", b"two\n")
    os.truncate(logs.layout.log("a"), 4)
    with logs.layout.log("a").with_suffix(".times").open("ab") as index:
        index.write(b"half")

    # When the second arrives again at the next server
    clock[0] += 60
    after = Logs(logs.layout)
    after.append("a", b"two\n")

    # Then both lines have their time
    found = list(chunks(after, "a", 0, 1 << 20))
    assert [(seconds(at), data) for _, at, data in found] == [(1000.0, b"one\n"), (1120.0, b"two\n")]


def test_a_sync_covers_all_that_is_known_of_a_job(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.append("a", b"one\n")
    syncs = Syncs(monkeypatch)
    logs.sync("a")
    assert syncs == ["a", "a.times", "logs"]

    logs.add_usage("a", Point(time=1, cpu=0.5, memory=1))
    syncs.clear()
    logs.sync("a")
    assert syncs == ["a", "a.times", "a.metrics", "logs"]


def test_what_does_not_fit_is_cut_back(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.append("a", b"one\n")

    def short(file: FileIO, data: bytes) -> None:
        file.write(data[:2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write", short)
        with pytest.raises(DiskFullError):
            logs.append("a", b"two\n")
        with pytest.raises(DiskFullError):
            logs.add_usage("a", Point(time=1, cpu=0.5, memory=1, gpu=None, gpu_memory=None))

    assert (logs.read("a", 0, 100), logs.usage("a")) == (b"one\n", [])
    logs.append("a", b"two\n")
    assert b"".join(data for _, _, data in chunks(logs, "a", 0, 100)) == b"one\ntwo\n"


def test_a_record_that_a_crash_cut_shifts_no_other(logs: Logs, clock: list[float]) -> None:
    logs.append("a", b"one\n")
    with logs._times("a").open("ab") as index:
        index.write(b"half")
    clock[0] += 60

    logs.append("a", b"two\n")

    assert [seconds(at) for _, at, _ in chunks(logs, "a", 0, 100)] == [1000.0, 1060.0]


def test_logs_leave_space_to_the_state(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "space", lambda folder: Space(free=1000, reserve=1000, files=True))

    logs.append("a", b"x" * 500)
    with pytest.raises(DiskFullError, match=r"1 kB are free, and 1\.5 kB are needed, of which 500 B stay free"):
        logs.append("a", b"x" * 1000)


def test_lines_that_lie_too_far_back_are_not_looked_for(logs: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKWARDS", 10)
    monkeypatch.setattr(module, "FARTHEST", 100)
    logs.append("a", b"line\n" * 200)

    assert logs.last_lines("a", 10) == 1000 - 10 * 5
    assert logs.last_lines("a", 150) == 0


@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"a\nb\n", b"a\nb\nc", b"\n\n\n", b"x" * 200_000 + b"\nb\nc\n"])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_last_lines_begin_where_a_line_does(logs: Logs, text: bytes, count: int) -> None:
    if text:
        logs.append("a", text)

    begin = logs.last_lines("a", count)

    assert begin == 0 or text[begin - 1 : begin] == b"\n"
    lines = text.splitlines(keepends=True)
    complete = [line for line in lines if line.endswith(b"\n")]
    assert text[begin:].endswith(
        b"".join(complete[len(complete) - count :] if count else []) + b"".join(lines[len(complete) :])
    )
    assert text[begin:].count(b"\n") <= count
