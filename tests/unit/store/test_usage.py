"""What jobs used, added up by whoever and whatever."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.model.api.usage import UsageKey
from dstack.model.job.job import Attempt, Job
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Resources
from dstack.store.store import Store
from dstack.store.usage import usage
from tests.unit.store.test_store import job, run

NOW = "2026-03-20T12:00:00.000Z"
SINCE = "2026-03-01T00:00:00.000Z"


def at(day: int, hour: int) -> str:
    return f"2026-03-{day:02}T{hour:02}:00:00.000Z"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(ServerLayout(tmp_path))


def add(store: Store, name: str, user: str = "ann", **changes: Any) -> None:
    store.runs.add(replace(run(name), user=user))
    ran = {"status": Status.DONE, "runner": "lab1", "submitted_at": at(10, 8), "placed_at": at(10, 9)}
    ran |= {"started_at": at(10, 10), "finished_at": at(10, 12), "gpus": (0, 1)}
    store.jobs.add(replace(job(f"id-{name}", name), **{**ran, **changes}))


def used(store: Store, *by: UsageKey) -> list[tuple[Any, ...]]:
    found = usage(store.database.path, SINCE, NOW, by)
    numbers = [(each.jobs, each.attempts, each.gpu_hours, each.cpu_hours, each.wait_hours) for each in found]
    return [(*(getattr(one, key) for key in by), *rest) for one, rest in zip(found, numbers, strict=True)]


def test_hours_are_counted_by_user_runner_and_week(store: Store) -> None:
    four: Job = job("x", "x")
    definition = replace(four.definition, resources=Resources(cpu="4"))
    add(store, "one")
    add(
        store,
        "two",
        "bob",
        gpus=(),
        definition=definition,
        runner="lab2",
        started_at=at(17, 10),
        finished_at=at(17, 11),
    )

    assert used(store) == [(2, 2, 4.0, 6.0, 2.0)]
    assert used(store, "user") == [("ann", 1, 1, 4.0, 2.0, 1.0), ("bob", 1, 1, 0.0, 4.0, 1.0)]
    assert [row[:2] for row in used(store, "runner", "week")] == [("lab1", "2026-03-09"), ("lab2", "2026-03-16")]
    assert [row[0] for row in used(store, "workflow")] == [four.workflow]


def test_each_attempt_counts_and_only_the_time_since_then(store: Store) -> None:
    earlier = Attempt(
        number=1,
        status=Status.LOST,
        exit_code=None,
        reason=None,
        runner="lab9",
        gpus=(0,),
        started_at="2026-02-28T20:00:00.000Z",
        finished_at=at(1, 3),
        log_start=0,
        log_end=0,
    )
    add(store, "again", history=(earlier,), attempt=2)
    add(store, "old", finished_at="2026-02-10T12:00:00.000Z", started_at="2026-02-10T10:00:00.000Z")

    assert used(store, "runner") == [("lab1", 1, 1, 4.0, 2.0, 0.0), ("lab9", 1, 1, 3.0, 3.0, 0.0)]


def test_what_runs_or_waits_counts_until_now(store: Store) -> None:
    add(store, "runs", status=Status.RUNNING, finished_at=None, started_at=at(20, 11))
    queued = {"runner": None, "gpus": (), "placed_at": None, "started_at": None}
    add(store, "waits", status=Status.QUEUED, finished_at=None, submitted_at=at(20, 10), **queued)
    add(store, "gave-up", status=Status.STOPPED, finished_at=at(10, 9), submitted_at=at(10, 8), **queued)
    add(store, "cached", cached_from="id-other", **{**queued, "runner": None})

    assert used(store) == [(3, 1, 2.0, 1.0, 1.0 + 2.0 + 1.0)]


@pytest.mark.long
def test_a_hundred_thousand_runs_are_added_up_by_index(store: Store) -> None:
    add(store, "one")
    add(store, "old", finished_at="2026-02-10T12:00:00.000Z")
    with store.database.transaction():
        store.database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO runs (name, workflow, user, data) SELECT 'r' || i, workflow, user, data FROM n, runs"
            " WHERE name = 'old'"
        )
        store.database.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " INSERT INTO jobs (id, run, workflow, status, key, data)"
            " SELECT 'j' || i, 'r' || i, workflow, status, key, data FROM n, jobs WHERE run = 'old'"
        )
    began = time.process_time()

    assert used(store, "user") == [("ann", 1, 1, 4.0, 2.0, 1.0)]

    recent = time.process_time() - began
    whole = usage(store.database.path, "2026-01-01T00:00:00.000Z", NOW, ["user"])
    assert whole[0].jobs == 100_002
    print(f"recent {recent:.3f} s, all {time.process_time() - began - recent:.3f} s")
    plan = store.database.rows(
        "EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE json_extract(data, '$.finished_at') >= ?", SINCE
    )
    assert "jobs_by_end" in str([tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in plan])
