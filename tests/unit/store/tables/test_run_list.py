"""Pages of a long list of runs: what is in them, how many there are, and that an index answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.server.views import run_view
from dstack.store.store import Store
from dstack.store.tables.run_list import RunFilter, conditions
from tests.unit.store.test_store import job, run

ENDED = {"exit_code": 0, "finished_at": "2026-01-01T00:00:01.000Z"}
MIXES = [(one, other) for one in Status for other in Status]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    for number, statuses in enumerate(MIXES):
        name = f"run-{number:02}"
        opened.runs.add(run(name, user="ann" if number % 2 else "bob"))
        for place, status in enumerate(statuses):
            ended = ENDED if status.finished else {}
            opened.jobs.add(job(f"{number:08x}{place:04x}", name, status=status, **ended))
    yield opened
    opened.close()


def names(store: Store, wanted: RunFilter) -> list[str]:
    return [each.name for _, each in store.run_list.page(wanted, 1000)]


@pytest.mark.parametrize("status", list(Status))
def test_a_run_is_listed_under_the_status_that_it_is_shown_with(store: Store, status: Status) -> None:
    shown = [each.name for each in store.runs.newest(-1) if run_view(each, store.jobs.of(each.name)).status is status]

    assert shown
    assert names(store, RunFilter(status=status)) == shown
    assert store.run_list.count(RunFilter(status=status)) == len(shown)


def test_filters_go_together_and_pages_follow_each_other(store: Store) -> None:
    store.runs.hide("run-01")
    wanted = RunFilter(user="ann", text="RUN-0")

    first = store.run_list.page(wanted, 2)
    second = store.run_list.page(wanted, 10, first[-1][0])

    assert [each.name for _, each in [*first, *second]] == ["run-09", "run-07", "run-05", "run-03"]
    assert names(store, RunFilter(names=("run-02", "run-01"))) == ["run-02"]
    assert names(store, RunFilter(text="%")) == []
    assert store.run_list.recent("user") == ["ann", "bob"]


def test_a_count_reads_no_record(store: Store) -> None:
    where, values = conditions(RunFilter(user="ann", text="run", status=Status.DONE))
    plan = store.database.rows(f"EXPLAIN QUERY PLAN SELECT count(*) FROM runs WHERE {where}", *values)

    scans = [row["detail"] for row in plan if "runs" in row["detail"] and "hidden" not in row["detail"]]
    assert all("COVERING INDEX" in detail for detail in scans), scans
