"""What users see of a run: its status, exit code and reason are those of the job that decided it."""

from __future__ import annotations

import pytest

from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Status
from dstack.model.project.workflow import Variables, Workflow
from dstack.server.views import run_view

RUN = Run(
    name="brave-otter-7",
    workflow="train",
    user="ann",
    submitted_at="2026-01-01T00:00:00.000Z",
    snapshot=Snapshot(repo="r", tree="t", commit="c", dirty=True),
    variables={"model": "117M", "seed": None},
)


def job(workflow: str, status: Status, **changes: object) -> Job:
    base = {
        "id": workflow,
        "run": RUN.name,
        "workflow": workflow,
        "definition": Workflow(name=workflow, image="busybox", commands=("true",)),
        "variables": Variables(),
        "image": "busybox",
        "key": "k",
        "why": "it has not run before",
        "submitted_at": RUN.submitted_at,
        "status": status,
    }
    return Job(**{**base, **changes})  # type: ignore[arg-type]


BROKE = Reason(None, "exited with 9")
NOT_RUN = Reason(ReasonCode.RUNNER_ERROR, "x")
NEEDED = Reason(ReasonCode.DEPENDENCY_FAILED, "b failed")
BY_YOU = Reason(ReasonCode.STOPPED_BY_USER, "by you")
DONE = job("a", Status.DONE, exit_code=0, finished_at="2026-01-01T00:01:00.000Z")
FAILED = job("b", Status.FAILED, exit_code=9, reason=BROKE, finished_at="2026-01-01T00:02:00.000Z")
LATER = job(
    "c",
    Status.FAILED,
    exit_code=125,
    reason=NOT_RUN,
    finished_at="2026-01-01T00:03:00.000Z",
)
GIVEN_UP = job("d", Status.STOPPED, reason=NEEDED, finished_at="2026-01-01T00:02:01.000Z")
STOPPED = job(
    "e",
    Status.STOPPED,
    exit_code=143,
    reason=BY_YOU,
    finished_at="2026-01-01T00:04:00.000Z",
)
RUNNING = job("f", Status.RUNNING)
QUEUED = job("g", Status.QUEUED, reason=Reason(ReasonCode.WAITING_FOR_DEPENDENCY, "waiting for f"))


@pytest.mark.parametrize(
    ("jobs", "status", "code", "reason"),
    [
        ([DONE], Status.DONE, 0, None),
        ([DONE, FAILED, GIVEN_UP], Status.FAILED, 9, "b: exited with 9"),
        ([LATER, FAILED], Status.FAILED, 9, "b: exited with 9"),
        ([STOPPED, DONE], Status.STOPPED, 143, "e: by you"),
        ([DONE, RUNNING, QUEUED], Status.RUNNING, None, "g: waiting for f"),
        ([FAILED, RUNNING], Status.RUNNING, None, None),
        ([DONE, QUEUED], Status.QUEUED, None, "g: waiting for f"),
    ],
)
def test_the_deciding_job(jobs: list[Job], status: Status, code: int | None, reason: str | None) -> None:
    view = run_view(RUN, jobs)

    assert (view.status, view.exit_code, view.reason) == (status, code, reason)
    assert (view.finished_at is not None) == status.finished


def test_a_run_ends_with_its_last_job() -> None:
    assert run_view(RUN, [DONE, LATER]).finished_at == LATER.finished_at


def test_a_cached_job_says_where_from() -> None:
    cached = job("a", Status.DONE, cached_from="old", exit_code=0, why="nothing changed since calm-fox-1")

    view = run_view(RUN, [cached]).jobs[0]

    assert (view.cached, view.cached_from) == (True, "old")
    assert (view.cache.hit, view.cache.why) == (True, "nothing changed since calm-fox-1")


def test_the_variables_of_a_run_are_text() -> None:
    assert run_view(RUN, [DONE]).variables == {"model": "117M", "seed": "null"}
