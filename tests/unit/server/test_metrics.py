"""Metrics over HTTP: series, comparisons, and runs found by their metrics."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.model.job.status import Status
from dstack.model.metrics.series import Series
from dstack.model.metrics.state import ReaderState
from dstack.model.project.workflow import Workflow
from tests.unit.server.world import World
from tests.unit.store.test_store import job, run

BEGAN, ENDED = "2026-01-01T00:00:00.000Z", "2026-01-01T00:01:30.000Z"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    add(world, "a", {"lr": "0.1", "opt": "adam"}, loss=[3, 1, 2], acc=[0.5])
    add(world, "b", {"lr": "1e-3", "opt": "adam"}, loss=[4, 2], acc=[0.7])
    add(world, "c", {"lr": "0.01", "opt": "sgd"}, loss=[math.nan])
    yield world
    world.store.close()


def add(world: World, name: str, variables: dict[str, str | None], source: str | None = None, **values: Any) -> None:
    store = world.store
    store.runs.add(replace(run(name), variables=variables, snapshot=replace(run(name).snapshot, commit="c" * 40)))
    definition = Workflow(name="train", image="busybox", commands=("true",), metrics="auto")
    ended = {"status": Status.DONE, "started_at": BEGAN, "finished_at": ENDED, "cached_from": source}
    store.jobs.add(job(f"job{name}", name, definition=definition, **ended))
    series: dict[str, Series] = {}
    for metric, numbers in values.items():
        for number in numbers:
            series.setdefault(metric, Series()).add(None, 1767225600.0, number)
    store.metrics.save(store.jobs.require(f"job{name}"), ReaderState(position=1), series)


def names(answer: tuple[int, Any]) -> list[str]:
    status, runs = answer
    assert status == 200, runs
    return [run["name"] for run in runs]


def message(answer: tuple[int, Any]) -> str:
    assert answer[0] in (400, 404), answer
    return str(answer[1]["message"])


def test_series_of_a_run_and_of_a_job(world: World) -> None:
    status, (found,) = world.call("GET", "/series/a?points=2&names=loss")
    assert status == 200
    assert (found["job"], found["workflow"], found["wanted"], found["refused"]) == ("joba", "train", True, {})
    (loss,) = found["series"]
    assert (loss["name"], loss["goal"], loss["count"]) == ("loss", "minimize", 3)
    assert loss["min"] == {"step": 1, "time": BEGAN, "value": 1.0}
    assert [point["value"] for point in loss["points"]] == [3, 2]
    assert world.call("GET", "/series/joba?points=2&names=loss") == (200, [found])


def test_a_cached_job_has_the_series_of_its_source(world: World) -> None:
    add(world, "again", {}, source="joba")
    (found,) = world.call("GET", "/series/again")[1]
    assert found["cached_from"] == "joba"
    assert [each["name"] for each in found["series"]] == ["loss", "acc"]
    assert world.call("GET", "/runs/again")[1]["metrics"] == {"loss": 2, "acc": 0.5}


def test_nan_is_a_string(world: World) -> None:
    assert world.call("GET", "/series/c")[1][0]["series"][0]["last"]["value"] == "NaN"
    assert world.call("GET", "/runs/c")[1]["metrics"] == {"loss": "NaN"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/series/nosuch", "no run or job 'nosuch'"),
        ("/series/a?names=los", "a has no metric 'los'; did you mean 'loss'?"),
        ("/series/a?points=1", "not valid"),
        ("/series/a?points=99999", "not valid"),
        ("/compare?refs=a,nosuch", "no run or job 'nosuch'"),
        ("/compare?refs=", "0 runs can't be compared"),
        ("/compare", "not valid"),
        ("/compare?refs=a,b&sort=los", "none of these runs has a metric 'los'; did you mean 'loss'?"),
        ("/runs?where=lrr<1", "no run has a variable or metric 'lrr'; did you mean 'lr'?"),
        ("/runs?where=lr<", "'lr<' is not a condition"),
        ("/runs?where=lr", "'lr' is not a condition"),
        ("/runs?where=lr<adam", "not a number; use = or !="),
        ("/runs?where=" + "+and+".join(["lr<1"] * 21), "21 conditions"),
        ("/runs?sort=-", "needs the name"),
        ("/runs?names=lr,x'y", "no run has a variable or metric"),
    ],
)
def test_what_can_not_be_answered_is_told(world: World, path: str, words: str) -> None:
    assert words in message(world.call("GET", path))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("where=lr<0.05", ["c", "b"]),
        ("where=lr<%3D0.01+and+opt%3Dadam", ["b"]),
        ("where=opt!%3Dadam", ["c"]),
        ("where=loss<3", ["b", "a"]),
        ("where=loss>0+AND+lr>0.05", ["a"]),
        ("sort=loss&names=loss", ["b", "a", "c", "known"]),
        ("sort=-loss", ["b", "a", "c", "known"]),
        ("sort=acc", ["b", "a", "c", "known"]),
        ("sort=-acc", ["a", "b", "c", "known"]),
        ("sort=lr&limit=2", ["b", "c"]),
        ("sort=opt", ["b", "a", "c", "known"]),
        ("where=loss<3&user=nobody", []),
        ("where=loss<3&status=done&limit=1", ["b"]),
        ("where=loss<3&workflow=other", []),
    ],
)
def test_runs_are_found_by_variables_and_metrics(world: World, query: str, found: list[str]) -> None:
    assert names(world.call("GET", f"/runs?{query}")) == found


def test_a_comparison_has_what_differs(world: World) -> None:
    # when
    status, found = world.call("GET", "/compare?refs=b,a,joba&sort=acc")
    # then
    assert status == 200
    assert found["differs"] == ["variables.lr", "metrics.loss", "metrics.acc"]
    assert found["best"] == {"loss": "a", "acc": "b"}
    first, second = found["runs"]
    assert (first["name"], first["variables"], first["seconds"]) == ("b", {"lr": "1e-3"}, 90)
    assert second["metrics"]["loss"] == {"last": 2, "best": 1, "best_step": 1}
    assert second["changed_files"] == []


def test_a_metric_that_only_some_have_differs(world: World) -> None:
    found = world.call("GET", "/compare?refs=c,a&sort=loss")[1]
    assert [each["name"] for each in found["runs"]] == ["a", "c"]
    assert "metrics.acc" in found["differs"]
    assert found["best"] == {"loss": "a", "acc": "a"}


def test_code_that_the_server_lacks_is_unknown(world: World) -> None:
    other = replace(run("other"), snapshot=replace(run("other").snapshot, tree="e" * 40))
    world.store.runs.add(other)
    found = world.call("GET", "/compare?refs=a,other")[1]
    assert found["runs"][1]["changed_files"] is None
    assert "code" in found["differs"]
