"""Which runners already have what a job needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.engine.queue import HAS_ARTIFACTS, Known
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.runner.runner import Address, Runner
from dstack.store.store import Store
from dstack.store.tables.contents import Retained

NOW = "2026-01-01T00:00:00.000Z"
RUN = Run(name="r", workflow="w", user="u", submitted_at=NOW, snapshot=Snapshot(repo="r", tree="t"), variables={})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    opened.runs.add(RUN)
    for name in ("one", "two"):
        opened.runners.add(Runner(name=name, address=Address()))
    yield opened
    opened.close()


def job(job_id: str, **changes: object) -> Job:
    workflow = Workflow(name="w", image="i", commands=("c",))
    base = {"id": job_id, "run": "r", "workflow": "w", "definition": workflow, "variables": Variables(), "image": "i"}
    return Job(**{**base, "key": "k", "why": "", "submitted_at": NOW, **changes})  # type: ignore[arg-type]


def near(store: Store, **made: object) -> dict[str, int]:
    """Return what is near a job that depends on one with these properties."""
    store.jobs.add(job("a", status=Status.DONE, **made))
    return Known(store).near(job("b", dependencies={"w": "a"}), RUN)


def test_artifacts_that_were_kept_are_near(store: Store) -> None:
    store.retained_artifacts.add(Retained("a", "a", "two", NOW))

    assert near(store, runner="two", discarded=True) == {"two": HAS_ARTIFACTS}


def test_those_of_a_job_that_ended_just_now_are_still_there(store: Store) -> None:
    assert near(store, runner="one") == {"one": HAS_ARTIFACTS}


def test_those_that_were_freed_are_nowhere(store: Store) -> None:
    assert near(store, runner="one", discarded=True) == {}


def test_those_of_a_cached_job_are_where_they_were_made(store: Store) -> None:
    store.jobs.add(job("c", status=Status.DONE, runner="two", discarded=True))
    store.retained_artifacts.add(Retained("c", "c", "two", NOW))

    assert near(store, cached_from="c") == {"two": HAS_ARTIFACTS}
