"""A job's log becomes series, however it arrives and whenever the server ends."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dstack.engine.lifecycle import log_metrics
from dstack.engine.lifecycle.log_metrics import LogMetrics
from dstack.model.api.results.metrics import point_view
from dstack.model.job.status import Status
from dstack.model.metrics.lines import complete, end_of_line
from dstack.model.metrics.named import SLOW
from dstack.model.metrics.reader import MOST_SERIES, Reader, Wanted
from dstack.model.metrics.series import Series
from dstack.model.metrics.state import ReaderState
from tests.unit.engine.lifecycle.machine import Killed, Machine, World

LOG = (
    "Epoch 1/3\n"
    + "".join(f"\r{n}%|██| {n}/9 [00:01<00:02, loss={n / 10}, acc={n}%]" for n in range(1, 10))
    + "\nloss: nan \x1b[31mval_loss: 1e-5\x1b[0m µ\nEpoch 2/3\nepoch  train_loss\n0  0.5\n1  inf\n"
    + '{"step": 7, "val_loss": 0.25}\r\n'
    + "no line end: loss=0.125"
).encode()


def read_in(pieces: list[bytes]) -> dict[str, list[str]]:
    """What is read when the log arrives in these pieces, each reader going on where the one before stopped."""
    series: dict[str, Series] = {}
    state, log = ReaderState(position=0), b""
    for piece in [*pieces, b""]:
        log += piece
        data = log[state.position :]
        whole = complete(data) if piece else len(data)
        reader = Reader("auto", state, series)
        reader.read(data[:whole], 0.0)
        state = reader.state(state.position + whole, 1)
    return {name: [f"{point.step:g} {point.value!r}" for _, point in each.fresh] for name, each in series.items()}


@settings(deadline=None)
@given(st.lists(st.integers(0, len(LOG)), max_size=30))
def test_where_a_log_is_cut_makes_no_difference(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(LOG)]
    pieces = [LOG[begin:end] for begin, end in pairwise(bounds)]
    assert read_in([piece for piece in pieces if piece]) == read_in([LOG])


@settings(deadline=None)
@given(st.binary(max_size=2000) | st.text("ab :=.-+0123456789einf%[]{}'\"|/\t\n\x1b", max_size=300).map(str.encode))
def test_any_bytes_are_read(data: bytes) -> None:
    for wanted in ("auto", {"x": r"a(\S*)", "step": r"b(\S*)"}):
        series: dict[str, Series] = {}
        Reader(wanted, ReaderState(position=0), series).read(data, 0.0)
        assert all(name and each.count for name, each in series.items())


@given(st.binary(max_size=50), st.integers(0, 50))
def test_a_line_ends_after_its_end(data: bytes, start: int) -> None:
    end = end_of_line(data, start)
    assert end == len(data) or (start < end and data[end - 1 : end] in (b"\n", b"\r", b"\b"))
    assert complete(data[:end]) in (end, 0) or end == len(data)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, Machine())
    wants(world, "auto")
    return world


def wants(world: World, metrics: Wanted) -> None:
    world.store.jobs.change("abc", definition=replace(world.job.definition, metrics=metrics))


def finish(world: World) -> None:
    asyncio.run(LogMetrics(world.drive()).finish())


def values(world: World, name: str) -> list[float]:
    return [point.value for point in world.store.metrics.series("abc", name, 1000)]


def test_reading_survives_a_kill_at_every_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr(log_metrics, "BLOCK", 64)
    lines = [f"step {number}: loss={number / 8}\n" for number in range(100)]
    world.store.logs.append("abc", "".join(lines).encode())
    save, kills = world.store.metrics.save, 0

    def killed(*given: object) -> None:
        nonlocal kills
        kills += 1
        if kills % 3 == 1:
            raise Killed  # before the commit
        save(*given)  # type: ignore[arg-type]
        if kills % 3 == 2:
            raise Killed  # after it

    monkeypatch.setattr(world.store.metrics, "save", killed)
    # when
    for _ in range(1000):
        try:
            finish(world)
            break
        except Killed:
            continue
    # then
    assert kills > 50
    assert values(world, "loss") == [number / 8 for number in range(100)]
    assert world.store.metrics.summaries("abc")["loss"].count == 100


def test_each_value_has_the_time_at_which_its_line_arrived(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    for at, data in ((10.0, b"loss=1\nlo"), (20.0, b"ss=2\nloss=3\n"), (30.0, b"loss=4")):
        monkeypatch.setattr("dstack.store.logs.time.time", lambda at=at: at)
        world.store.logs.append("abc", data)
    # when
    finish(world)
    # then
    points = world.store.metrics.series("abc", "loss", 10)
    assert [(point.value, point.time) for point in points] == [(1, 10), (2, 10), (3, 20), (4, 30)]


def test_a_new_attempt_begins_anew(world: World) -> None:
    # given
    world.store.logs.append("abc", b"loss=1\nloss=2\n")
    finish(world)
    size = world.store.logs.size("abc")
    world.store.jobs.change("abc", attempt=2, log_start=size)
    # when
    world.store.logs.append("abc", b"loss=3\n")
    finish(world)
    # then
    assert values(world, "loss") == [3]


def test_a_secret_is_no_metric(world: World) -> None:
    # given
    world.store.secrets.give("abc", ["12345"])
    world.store.logs.append("abc", b"pin=12345\nloss=1\n")
    # when
    finish(world)
    # then
    assert list(world.store.metrics.summaries("abc")) == ["loss"]


def test_an_expression_that_is_slow_or_invalid_is_told_once_and_the_others_go_on(world: World) -> None:
    # given
    wants(world, {"bad": "(", "slow": r"(?:\w+\s?)*(\d)$", "loss": r"loss=(\S+)"})
    world.store.logs.append("abc", (b"a" * 3000 + b"! loss=1\n") * 5)
    # when
    finish(world)
    world.store.logs.append("abc", (b"a" * 3000 + b"! loss=2\n") * 5)
    finish(world)
    # then
    assert values(world, "loss") == [1] * 5 + [2] * 5
    told = [event.data for event in world.store.events.select(run="run") if event.kind == "job.metrics-refused"]
    assert {each["name"] for each in told} == {"bad", "slow"}
    assert len(told) == 2
    state = world.store.metrics.state("abc")
    assert state is not None
    assert state.refused["slow"] == SLOW


def test_ever_new_names_are_bounded(world: World) -> None:
    # given
    world.store.logs.append("abc", b"".join(b"loss%d=1\n" % number for number in range(2 * MOST_SERIES)))
    # when
    finish(world)
    # then
    assert len(world.store.metrics.summaries("abc")) == MOST_SERIES
    told = [event.data for event in world.store.events.select(run="run") if event.kind == "job.metrics-refused"]
    assert [each.get("name") for each in told] == [None]


def test_a_whole_life_reads_the_last_line_without_an_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    monkeypatch.setattr("tests.unit.engine.lifecycle.machine.LOG", b"loss=1\nloss=2")
    # when
    asyncio.run(world.drive().run())
    # then
    assert world.job.status is Status.DONE
    assert values(world, "loss") == [1, 2]


def test_a_bug_in_the_reading_does_not_keep_the_job_from_ending(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    def broken(*given: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("dstack.model.metrics.reader.lines", broken)
    # when
    asyncio.run(world.drive().run())
    # then
    assert world.job.status is Status.DONE
    state = world.store.metrics.state("abc")
    assert state is not None
    assert "internal error in dstack: ZeroDivisionError" in state.refused[""]


@pytest.mark.parametrize(
    "line", ["step 1e999: loss=1", "[" + "9" * 400 + "] loss=1", "9e999 1", '{"step": 1e300, "loss": 1}']
)
def test_a_step_is_finite(line: str) -> None:
    series: dict[str, Series] = {}
    Reader("auto", ReaderState(position=0, columns=("epoch", "loss")), series).read(line.encode(), 0.0)
    shown = [point_view(point) for each in series.values() for _, point in each.fresh]
    assert all(msgspec.json.encode(point) and abs(point.step) <= 1e300 for point in shown)
