"""Which changes of a job are events."""

from __future__ import annotations

from msgspec.structs import replace

from dstack.model.job.attempts import following
from dstack.model.job.changes import details, happened
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Phase, Progress, Status
from dstack.model.project.workflow import Variables, Workflow

JOB = Job(
    id="aa",
    run="brave-otter-7",
    workflow="train",
    definition=Workflow(name="train", image="busybox", commands=("true",)),
    variables=Variables(),
    image="busybox",
    key="k",
    why="",
    submitted_at="2026-01-01T00:00:00.000Z",
)


def between(before: Job | None, **changes: object) -> list[str]:
    return list(happened(before, replace(before or JOB, **changes)))


def test_each_status_is_an_event() -> None:
    placed = replace(JOB, status=Status.PREPARING, runner="lab1", gpus=(0,))

    assert between(None) == ["job.queued"]
    assert between(None, status=Status.DONE, cached_from="bb") == ["job.done"]
    assert between(JOB, status=Status.PREPARING, runner="lab1") == ["job.placed"]
    assert between(placed, status=Status.RUNNING) == ["job.running"]
    assert between(placed, status=Status.QUEUED, runner=None) == ["job.queued"]


def test_each_phase_of_the_preparation_is_an_event_but_progress_is_none() -> None:
    placed = replace(JOB, status=Status.PREPARING, runner="lab1")

    assert between(placed, preparation=Phase.PULLING) == ["job.preparing"]
    assert between(placed, progress=Progress(done=1, total=2, unit="bytes")) == []


def test_a_reason_is_an_event_if_its_code_changes() -> None:
    waits = replace(JOB, reason=Reason(ReasonCode.RUNNER_BUSY, "lab1 has 1 of 2 GPUs free"))

    assert between(JOB, reason=waits.reason) == ["job.reason"]
    assert between(waits, reason=Reason(ReasonCode.RUNNER_BUSY, "lab1 has no GPU free")) == []
    assert between(waits, reason=None) == ["job.reason"]
    assert details(waits)["reason_code"] == "runner-busy"
    assert details(waits)["reason"] == "lab1 has 1 of 2 GPUs free"


def test_what_users_ask_for_is_an_event() -> None:
    held = replace(JOB, held="ann")

    assert between(JOB, held="ann") == ["job.held"]
    assert between(held, held=None) == ["job.released"]
    assert between(held, held=None, stop="stop") == ["job.released", "job.stop-requested"]
    assert between(replace(JOB, stop="stop"), stop="abort") == ["job.stop-requested"]


def test_bookkeeping_is_no_event() -> None:
    assert between(JOB) == []
    assert between(replace(JOB, status=Status.RUNNING), warned=True, image_digest="sha256:1") == []
    assert between(replace(JOB, status=Status.DONE), discarded=True, storages=()) == []


def test_the_data_has_what_is_set() -> None:
    assert details(JOB)["workflow"] == "train"
    assert "exit_code" not in details(replace(JOB, status=Status.UPLOADING, exit_code=0))
    assert details(replace(JOB, status=Status.DONE, exit_code=0, gpus=(0, 1)))["exit_code"] == 0
    assert details(replace(JOB, gpus=(0, 1)))["gpus"] == (0, 1)


def test_a_new_attempt_says_how_the_one_before_ended() -> None:
    running = replace(JOB, status=Status.UPLOADING, runner="lab1", cause="error")
    why = Reason(ReasonCode.OUT_OF_MEMORY, "out of memory")
    again = following(running, Status.FAILED, exit_code=3, reason=why, log_size=9, now=1.7e9)

    assert between(running, **again) == ["job.queued"]
    said = details(replace(running, **again))
    assert said["attempt"] == 2
    assert said["previous"] == {
        "status": "failed",
        "exit_code": 3,
        "reason_code": "out-of-memory",
        "reason": "out of memory",
    }
