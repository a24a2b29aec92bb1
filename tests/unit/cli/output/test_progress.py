"""How lines and the status line show a transfer."""

from __future__ import annotations

import pytest

from dstack.cli.output.progress import ProgressLines, so_far
from dstack.model.api.jobs import JobView
from dstack.model.job.reasons import ReasonCode
from dstack.model.job.status import Phase, Progress, Status
from tests.unit.cli.fake_server import job_view

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
