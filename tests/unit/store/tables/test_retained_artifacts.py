"""What is kept on which machine, and what of it is removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.model.job.job import Job
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Variables, Workflow
from dstack.store.store import Store
from dstack.store.tables.contents import Retained

LONG_AGO = "2020-01-01T00:00:00.000Z"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    for number in range(5):
        made = job(f"j{number}")
        opened.jobs.add(made)
        opened.retained_artifacts.add(Retained(made.id, f"{made.id}-2", "box", f"2026-01-0{number + 1}T00:00:00.000Z"))
    opened.retained_artifacts.add(Retained("other", "other", "lab", LONG_AGO))
    yield opened
    opened.close()


def job(name: str) -> Job:
    workflow = Workflow(name="w", image="i", commands=("c",))
    whose = {"id": name, "run": f"run-{name}", "workflow": "w", "definition": workflow, "variables": Variables()}
    return Job(**whose, image="i", key="k", why="", submitted_at=LONG_AGO)  # type: ignore[arg-type]


def test_nothing_goes_before_its_time(store: Store) -> None:
    assert store.retained_artifacts.overdue("box", LONG_AGO, 5) == []
    assert [each.job for each in store.retained_artifacts.of("box")] == ["j0", "j1", "j2", "j3", "j4"]


def test_the_oldest_go(store: Store) -> None:
    assert store.retained_artifacts.overdue("box", "2026-01-02T12:00:00.000Z", 100) == ["j0-2", "j1-2"]
    assert store.retained_artifacts.overdue("box", LONG_AGO, 3) == ["j0-2", "j1-2"]


def test_those_of_deleted_runs_go(store: Store) -> None:
    store.runs.hide("run-j3")
    store.jobs.remove("j1")

    assert store.retained_artifacts.overdue("box", LONG_AGO, 5) == ["j1-2", "j3-2"]
    store.retained_artifacts.remove(["j1-2", "j3-2"])
    assert [each.job for each in store.retained_artifacts.of("box")] == ["j0", "j2", "j4"]
