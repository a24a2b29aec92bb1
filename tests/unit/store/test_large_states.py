"""What is asked of a large state goes by an index, in so many statements and rows whatever its size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.model.job.status import Status, summary
from dstack.model.paths import ServerLayout
from dstack.store.lookup import jobs_named, run_named
from dstack.store.store import Store
from tests.unit.store.test_store import job, run

RUNS = 40


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    for number in range(RUNS):
        opened.runs.add(run(f"run-{number:03}", repo=f"r{number % 3}"))
        status = Status.DONE if number % 2 else Status.FAILED
        opened.jobs.add(job(f"{number:012x}", f"run-{number:03}", status=status, runner="lab1", discarded=True))
    opened.jobs.current()
    yield opened
    opened.close()


QUESTIONS: dict[str, Callable[[Store], object]] = {
    "a run by its name": lambda store: run_named(store, "run-007"),
    "a run by a prefix": lambda store: jobs_named(store, "run-00"[:6] + "7"),
    "the newest runs": lambda store: store.runs.newest(3),
    "the newest runs in a state": lambda store: store.runs.newest(3, status=Status.LOST),
    "the newest runs of a workflow": lambda store: store.runs.newest(3, workflow="nothing"),
    "the newest runs of somebody": lambda store: store.runs.newest(3, user="nobody"),
    "a page of runs": lambda store: next(store.runs.pages(3)),
    "some runs": lambda store: store.runs.several(["run-001", "run-002"]),
    "a repository's URL": lambda store: store.runs.url("nowhere"),
    "a repository's snapshots": lambda store: store.runs.snapshots("r1"),
    "an idempotency key": lambda store: store.runs.submitted_with("key"),
    "the last result of a workflow": lambda store: store.jobs.last_done("train", "nowhere"),
    "the results with a key": lambda store: store.jobs.done_with("other"),
    "who uses a result": lambda store: store.jobs.users_of(["000000000001", "000000000002"]),
    "jobs without artifacts": lambda store: store.jobs.incomplete(["run-001", "run-002"]),
    "images of runs": lambda store: store.jobs.images_of(["run-001", "run-002"]),
    "when runs ended": lambda store: store.jobs.ended(["run-001", "run-002"]),
    "what lies on a runner": lambda store: store.jobs.to_discard("lab1"),
    "what lies on any runner": lambda store: store.jobs.left_on(),
    "what was aborted": lambda store: store.jobs.aborted_on(),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_reads_a_whole_table(store: Store, question: str) -> None:
    # When the question is asked
    asked: list[str] = []
    store.database.conn.set_trace_callback(asked.append)
    QUESTIONS[question](store)
    store.database.conn.set_trace_callback(None)

    # Then each statement searches; one without a condition ends at its limit
    queries = [sql for sql in asked if sql.startswith("SELECT") and (" runs " in sql or " jobs " in sql)]
    plans = {sql: [row[3] for row in store.database.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in queries}
    scans = {sql: plan for sql, plan in plans.items() for step in plan if step in ("SCAN runs", "SCAN jobs")}
    assert queries
    assert all("ORDER BY number DESC LIMIT 3" in sql and not sorts(plan) for sql, plan in scans.items()), scans
    assert len(asked) < 10


def sorts(plan: list[str]) -> bool:
    return any("TEMP B-TREE" in step for step in plan)


def test_runs_in_a_state_are_found_however_old_they_are(store: Store) -> None:
    store.runs.add(run("newest"))

    assert [found.name for found in store.runs.newest(2, status=Status.FAILED)] == ["run-038", "run-036"]
    assert len(store.runs.newest(-1, status=Status.FAILED)) == RUNS / 2
    assert [found.name for found in store.runs.newest(1, status=Status.DONE, workflow="train")] == ["newest"]


@pytest.mark.parametrize(("first", "second"), list(itertools.product(Status, Status)))
def test_a_run_is_listed_with_the_status_that_its_jobs_give_it(store: Store, first: Status, second: Status) -> None:
    # Given a run whose jobs got these states, one when it was recorded and one by a change
    store.runs.add(run("mine"))
    store.jobs.add(job("a", "mine", status=first))
    store.jobs.add(job("b", "mine"))
    steps = {Status.RUNNING: (Status.PREPARING,), Status.UPLOADING: (Status.PREPARING,), Status.QUEUED: ()}
    for step in (*steps.get(second, ()), second):
        store.jobs.change("b", status=step)

    # Then it is among the runs in that state, and in no other
    listed = [status for status in Status if "mine" in {each.name for each in store.runs.newest(-1, status=status)}]
    assert listed == [summary([first, second])]

    # And the state follows when a job is forgotten
    store.jobs.remove("b")
    assert "mine" in {each.name for each in store.runs.newest(-1, status=first)}


def test_pages_have_every_run_once_while_others_are_added_and_removed(store: Store) -> None:
    pages = store.runs.pages(7)
    seen = [each.name for each in next(pages)]
    store.runs.add(run("newer"))
    store.runs.hide(seen[0])
    store.runs.hide("run-000")
    seen += [each.name for page in pages for each in page]

    assert seen == [f"run-{number:03}" for number in range(RUNS - 1, 0, -1)]
