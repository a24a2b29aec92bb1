"""Which jobs get another attempt."""

from __future__ import annotations

from typing import Any

import pytest

from dstack.model.job.attempts import again, following
from dstack.model.job.job import Attempt, Job
from dstack.model.job.status import Status
from dstack.model.project.workflow import Retry, Variables, Workflow


def job(*, attempts: int = 2, on: tuple[str, ...] = ("lost", "error"), **changes: Any) -> Job:
    workflow = Workflow(name="train", image="busybox", commands=("true",), retry=Retry(attempts=attempts, on=on))
    fixed: dict[str, Any] = {
        "id": "a",
        "run": "r",
        "workflow": "train",
        "definition": workflow,
        "variables": Variables(),
    }
    rest = {"image": "busybox", "key": "k", "why": "", "submitted_at": "2026-01-01T00:00:00.000Z", "cause": "error"}
    return Job(**{**fixed, **rest, **changes})


def attempt(number: int, *, preempted: bool = False) -> Attempt:
    none: dict[str, Any] = dict.fromkeys(("exit_code", "reason", "runner", "started_at"))
    times: dict[str, Any] = {"finished_at": "2026-01-01T00:00:00.000Z", "log_start": 0, "log_end": 0}
    return Attempt(number=number, status=Status.FAILED, gpus=(), preempted=preempted, **none, **times)


def test_a_job_is_tried_as_often_as_its_rule_says() -> None:
    assert again(job(attempts=2), 1)
    assert not again(job(attempts=2, attempt=2, history=(attempt(1),)), 1)


def test_an_attempt_that_was_preempted_does_not_count() -> None:
    assert again(job(attempts=2, attempt=2, history=(attempt(1, preempted=True),)), 1)
    assert not again(job(attempts=2, attempt=3, history=(attempt(1, preempted=True), attempt(2))), 1)


def test_a_preempted_job_is_queued_again_without_a_rule_unless_someone_stops_it() -> None:
    assert again(job(attempts=1, preempted_by="ann's brave-otter-7", cause=None), 143)
    assert not again(job(attempts=1, preempted_by="ann's brave-otter-7", cause=None, stop="stop"), 143)


@pytest.mark.parametrize(
    ("on", "cause", "exit_code", "retried"),
    [
        (("lost",), "lost", 125, True),
        (("error",), "lost", 125, False),
        (("error",), "out-of-memory", 137, True),
        (("out-of-memory",), "error", 1, False),
        (("42",), "error", 42, True),
        (("42",), "error", 1, False),
    ],
)
def test_a_rule_names_causes(on: tuple[str, ...], cause: str, exit_code: int, retried: bool) -> None:
    assert again(job(on=on, cause=cause), exit_code) is retried


def test_nothing_is_tried_again_that_someone_stopped() -> None:
    assert not again(job(stop="stop"), 143)


def test_the_next_attempt_knows_nothing_of_the_one_before() -> None:
    ended = job(status=Status.RUNNING, runner="lab1", launching=True, warned=True, expired=True, log_start=3)

    changes = following(ended, Status.FAILED, exit_code=1, reason=None, log_size=10, now=0.0)

    assert (changes["attempt"], changes["status"], changes["runner"]) == (2, Status.QUEUED, None)
    assert [changes[name] for name in ("launching", "warned", "expired")] == [False, False, False]
    assert [(each.log_start, each.log_end) for each in changes["history"]] == [(3, 10)]
    assert changes["log_start"] == 10
