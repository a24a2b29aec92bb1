"""What is printed while a run is followed, and at its end."""

from __future__ import annotations

import pytest

from dstack.cli.output.log_writer import LogWriter
from dstack.cli.output.progress import LogLines, ProgressLines, so_far, state
from dstack.cli.output.screen import SCREEN
from dstack.model.api.jobs import CacheView, JobView
from dstack.model.api.runs import Event
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Phase, Progress, Status
from tests.unit.cli.fake_server import job_view, run_view
from tests.unit.cli.output.conftest import Watched

LAYERS = Progress(3, 8, "layers")


def pulling(text: str, progress: Progress | None = None, code: str = ReasonCode.PULLING_IMAGE) -> JobView:
    values = {"status": Status.PREPARING, "phase": Phase.PULLING, "exit_code": None, "finished_at": None}
    return job_view("aa", "train", reason=text, reason_code=code, progress=progress, **values)


def test_progress_in_words() -> None:
    assert so_far(LAYERS) == "3 of 8 layers"
    assert so_far(Progress(1_200_000, 3_400_000_000)) == "1.2 MB of 3.4 GB"


def test_a_pull_has_one_line_and_a_failure_another(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines([pulling("")], None)

    for job in (
        pulling("pulling it"),
        pulling("pulling it: 3 of 8 layers", LAYERS),
        pulling("Docker does not answer", code=ReasonCode.RUNNER_UNREACHABLE),
    ):
        lines.job(job)

    assert capsys.readouterr().err.splitlines() == [
        "train: preparing on lab1: pulling it",
        "train: preparing on lab1: Docker does not answer",
    ]


def test_a_container_that_is_about_to_start_has_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"status": Status.PREPARING, "phase": Phase.STARTING, "exit_code": None, "finished_at": None}
    starting = job_view("aa", "train", **values)

    ProgressLines([starting], None).job(starting)

    assert capsys.readouterr().err == ""


def unfinished(
    job: str, workflow: str, status: Status, code: str | None = None, why: str = "", **more: object
) -> JobView:
    """Return a job that has not ended; `code` is that of its reason `why`."""
    phase = {Status.QUEUED: Phase.QUEUED, Status.PREPARING: Phase.PULLING}.get(status, Phase(status.value))
    values = {"phase": phase, "exit_code": None, "finished_at": None, "started_at": None, **more}
    return job_view(job, workflow, status=status, reason=why or None, reason_code=code, **values)


def seven() -> list[JobView]:
    """A graph of seven jobs: two cached, one that can begin, and four that wait."""
    cached = CacheView(True, "nothing changed since calm-ant-1")
    waits = [
        unfinished(name, name, Status.QUEUED, ReasonCode.WAITING_FOR_DEPENDENCY, "waiting for clean")
        for name in ("tokenize", "train", "evaluate", "report")
    ]
    return [
        *(job_view(name, name, cached=True, cached_from="x", cache=cached) for name in ("download", "unpack")),
        unfinished("clean", "clean", Status.QUEUED),
        *waits,
    ]


def test_a_run_of_seven_jobs_begins_with_a_table_on_a_terminal(terminal: Watched) -> None:
    ProgressLines(seven(), None, named="report").begin()
    SCREEN.status("")

    assert terminal() == [
        "WORKFLOW  PLAN    WHY",
        "download  cached  nothing changed since calm-ant-1",
        "unpack    cached  nothing changed since calm-ant-1",
        *(f"{name:<8}  run     no earlier run of it" for name in ("clean", "tokenize", "train", "evaluate", "report")),
    ]


def test_without_a_terminal_each_dependency_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressLines(seven(), None, named="report").begin()

    assert capsys.readouterr().err.splitlines() == [
        *(f"{name}: cached: nothing changed since calm-ant-1" for name in ("download", "unpack")),
        *(f"{name}: will run: no earlier run of it" for name in ("clean", "tokenize", "train", "evaluate")),
    ]


def test_then_only_changes_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines(seven(), None, named="report")

    lines.job(unfinished("train", "train", Status.QUEUED, ReasonCode.WAITING_FOR_DEPENDENCY, "waiting for tokenize"))
    lines.job(unfinished("clean", "clean", Status.QUEUED, ReasonCode.RUNNER_BUSY, "lab1 has no free GPU"))
    lines.job(unfinished("clean", "clean", Status.RUNNING))
    lines.job(unfinished("clean", "clean", Status.UPLOADING))
    lines.job(job_view("clean", "clean"))

    assert capsys.readouterr().err.splitlines() == [
        "clean: queued: lab1 has no free GPU",
        "clean: running on lab1",
        "clean: done in 1m 12s",
    ]


def test_artifacts_are_mentioned_only_if_there_are_some() -> None:
    assert state(unfinished("1", "train", Status.UPLOADING)) == "finishing on lab1"
    assert state(unfinished("1", "train", Status.UPLOADING, progress=Progress(1, 2))) == "uploading artifacts on lab1"


def test_the_status_line_says_who_works_and_how_many_wait(terminal: Watched) -> None:
    lines = ProgressLines(seven(), None)

    lines.job(pulling("pulling it", LAYERS))

    assert terminal()[-1][2:] == "train: pulling 3 of 8 layers · 5 waiting"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failure_is_told_once(capsys: pytest.CaptureFixture[str], jobs: int) -> None:
    why = "pulling busybox:9 failed: the registry has no such image"
    ended = {"status": Status.FAILED, "exit_code": 125, "started_at": None}
    failed = job_view("1", "prep", reason=why, **ended)
    run = run_view(
        "calm-ant-1",
        [failed, job_view("2", "train", **ended)][:jobs],
        reason=f"prep: {why}",
        **{key: ended[key] for key in ("status", "exit_code")},
    )

    ProgressLines(run.jobs, None).run(run)

    said = capsys.readouterr().err
    assert said.count(why) == 1
    assert f"prep: failed with exit code 125: {why}\n" in said
    assert f"exit code 125{', because of prep' if jobs > 1 else ''}\n" in said


def test_a_quiet_command_tells_the_reason_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"status": Status.FAILED, "exit_code": 3, "reason": "it broke"}
    run = run_view("calm-ant-1", [job_view("1", "train", **failed)], **failed | {"reason": "train: it broke"})

    ProgressLines(run.jobs, None, quiet=True).run(run)

    assert "calm-ant-1: failed after 1m 12s, exit code 3: train: it broke" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("log", "began", "command"), [(b"x", True, "logs"), (b"", True, "runs"), (b"", False, "runs"), (None, True, "logs")]
)
def test_the_next_command_has_something_to_show(
    capsys: pytest.CaptureFixture[str], log: bytes | None, began: bool, command: str
) -> None:
    """The log is empty if the image could not be pulled. None: the command didn't ask for logs."""
    job = job_view("1", "train", **{} if began else {"started_at": None})
    lines = ProgressLines([job], None if log is None else LogWriter())
    if log:
        lines.log(Event(event="log", id="1"), log)

    lines.run(run_view("calm-ant-1", [job]))

    assert capsys.readouterr().err.splitlines()[-1] == f"next: dstack {command} calm-ant-1"


def test_followed_logs_say_why_they_are_empty(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [unfinished("1", "train", Status.QUEUED)]
    lines = LogLines(jobs, LogWriter(), {"1": "train"})

    for code, why in ((ReasonCode.WAITING_FOR_DEPENDENCY, "waiting for prep"), (ReasonCode.RUNNER_BUSY, "no free GPU")):
        lines.job(unfinished("1", "train", Status.QUEUED, code, why))
    lines.job(pulling("pulling it"))
    lines.job(unfinished("1", "train", Status.RUNNING))
    lines.job(job_view("1", "train"))

    assert capsys.readouterr().err.splitlines() == [
        "train: queued: waiting for prep",
        "train: queued: no free GPU",
        "train: preparing on lab1: pulling it",
    ]


def test_followed_logs_of_a_queued_run_are_no_blank_screen(terminal: Watched) -> None:
    LogLines([], LogWriter(), {}).job(unfinished("1", "train", Status.QUEUED))

    assert [line[2:] for line in terminal()] == ["train: queued"]
