"""What was read from logs is kept whole, exact and small."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dstack.model.metrics.series import KEPT, MetricPoint, Series
from dstack.model.metrics.state import ReaderState
from dstack.model.paths import ServerLayout
from dstack.store.store import Store
from tests.unit.store.test_store import job as record

HUGE = 100_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(ServerLayout(tmp_path))
    yield store
    store.close()


def save(store: Store, job: str, values: dict[str, list[float]], position: int = 1) -> None:
    series = store.metrics.load(job)
    for name, numbers in values.items():
        for number in numbers:
            series.setdefault(name, Series()).add(None, 5.0, number)
    store.metrics.save(record(job, "run"), ReaderState(position=position), series)


def test_series_continue_where_they_were_saved(store: Store) -> None:
    # when
    save(store, "a", {"loss": [3.0, 1.0], "acc": [0.5]})
    save(store, "a", {"loss": [2.0]}, position=9)
    save(store, "b", {"loss": [7.0]})
    # then
    found = store.metrics.summaries("a")
    assert list(found) == ["loss", "acc"]
    assert (found["loss"].count, found["loss"].last) == (3, MetricPoint(2, 5.0, 2.0))
    assert (found["loss"].min, found["loss"].max) == (MetricPoint(1, 5.0, 1.0), MetricPoint(0, 5.0, 3.0))
    assert [point.value for point in store.metrics.series("a", "loss", 10)] == [3.0, 1.0, 2.0]
    assert store.metrics.state("a") == ReaderState(position=9)


def test_a_long_series_is_exact_in_numbers_and_keeps_few_points(store: Store) -> None:
    # when
    for begin in range(0, HUGE, 1000):
        save(store, "a", {"loss": [float(number) for number in range(begin, begin + 1000)]})
    # then
    found = store.metrics.summaries("a")["loss"]
    assert (found.count, found.min.value, found.max.value, found.last.step) == (HUGE, 0, HUGE - 1, HUGE - 1)
    kept = store.database.value("SELECT count(*) FROM metric_points")
    assert KEPT // 2 <= kept <= KEPT
    points = store.metrics.series("a", "loss", HUGE)
    gaps = {after.step - before.step for before, after in pairwise(points[:-1])}
    assert len(gaps) == 1
    assert points[-1].value == HUGE - 1
    few = store.metrics.series("a", "loss", 5)
    assert [few[0].step, few[-1].step, len(few)] == [0, HUGE - 1, 5]


def test_nan_and_infinity_are_kept_and_nan_is_no_best_value(store: Store) -> None:
    # when
    save(store, "a", {"loss": [math.nan, 2.0, math.inf, math.nan], "only": [math.nan]})
    # then
    found = store.metrics.summaries("a")
    assert (found["loss"].min.value, found["loss"].max.value) == (2.0, math.inf)
    assert math.isnan(found["loss"].last.value)
    assert math.isnan(found["only"].min.value)
    assert [str(point.value) for point in store.metrics.series("a", "loss", 10)] == ["nan", "2.0", "inf", "nan"]


def test_a_failed_save_leaves_everything_as_it_was(store: Store) -> None:
    # given
    save(store, "a", {"loss": [1.0]})
    series = store.metrics.load("a")
    series["loss"].add(None, 5.0, 2.0)
    series["broken"] = Series()  # has no point: it can't be saved
    # when
    with pytest.raises(AssertionError):
        store.metrics.save(record("a", "run"), ReaderState(position=2), series)
    # then
    assert store.metrics.summaries("a")["loss"].count == 1
    assert store.metrics.state("a") == ReaderState(position=1)


def test_what_is_removed_leaves_nothing(store: Store) -> None:
    # given
    save(store, "a", {"loss": [1.0, 2.0]})
    # when
    store.metrics.remove("a")
    # then
    tables = ("metric_series", "metric_points", "metric_readers")
    assert [store.database.value(f"SELECT count(*) FROM {table}") for table in tables] == [0, 0, 0]
    assert store.metrics.series("a", "loss", 10) == []


def test_a_damaged_position_is_set_aside(store: Store) -> None:
    # given
    save(store, "a", {"loss": [1.0]})
    store.database.execute("UPDATE metric_readers SET data = '{'")
    # then
    assert store.metrics.state("a") is None
    assert store.damaged.all() == ["metrics a"]
