"""`dstack sweep` before anything is submitted, and what it prints of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dstack.cli.commands.sweep.follow import counts, outcome, show_event
from dstack.model.api.sweeps import SweepEvent, SweepView, TrialView
from dstack.model.job.status import Status
from dstack.model.project.workflow import MetricGoal
from dstack.model.sweep.status import SweepMethod, SweepStatus
from tests.unit.cli.conftest import Cli

SWEEP = """\
    sweep:
      metric: {name: val_loss}
      params:
        learning_rate: [0.1, 0.01]
        batch_size: {min: 1, max: 3}
      try-first: [{learning_rate: 0.01, batch_size: 2}]
"""
TRIAL = TrialView(
    number=1,
    run="s-1",
    status=Status.DONE,
    values={"lr": "0.1", "opt": "adam"},
    value=0.25,
    exit_code=0,
    reason=None,
    reason_code=None,
)
VIEW = SweepView(
    name="s",
    workflow="train",
    user="ann",
    status=SweepStatus.DONE,
    stopping=False,
    exit_code=0,
    reason=None,
    reason_code=None,
    method=SweepMethod.GRID,
    metric=MetricGoal(name="loss", goal="minimize"),
    seed=1,
    max_runs=1,
    parallel=4,
    stop_early=None,
    max_failures=None,
    submitted_at="2026-01-01T00:00:00.000Z",
    finished_at="2026-01-01T00:00:09.000Z",
    best=TRIAL,
    trials=[TRIAL],
)


@pytest.fixture
def swept(project: Path) -> Path:
    """The project, with a sweep of `train`."""
    with (project / ".dstack" / "workflows.yaml").open("a") as file:
        file.write(SWEEP)
    return project


def tried(cli: Cli, *words: str) -> list[dict[str, str]]:
    done = cli("sweep", *words, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    return [trial["values"] for trial in json.loads(done.stdout)["trials"]]


def test_the_sweep_of_the_file_and_what_options_make_of_it(cli: Cli, swept: Path) -> None:
    whole = tried(cli, "train")
    assert whole[0] == {"learning_rate": "0.01", "batch_size": "2"}
    assert len(whole) == 6
    assert tried(cli, "train", "--learning-rate", "1,2", "--batch-size", "7") == [
        {"learning_rate": "1"},
        {"learning_rate": "2"},
    ]
    assert len(tried(cli, "--max-runs", "2", "train", "--batch_size", "1..9")) == 2
    assert tried(cli, "train", "--seed", "1..2", "--batch_size", "1", "--learning_rate", "1") == [
        {"seed": "1"},
        {"seed": "2"},
    ]
    assert tried(cli, "train", "--batch-size", "-1,1", "--learning_rate", "1") == [
        {"batch_size": "-1"},
        {"batch_size": "1"},
    ]
    first = ("--try-first", "batch-size=3,learning_rate=0.1")
    assert tried(cli, *first, "train")[0] == {"learning_rate": "0.1", "batch_size": "3"}


def test_a_dry_run_is_a_table_for_people(cli: Cli, swept: Path) -> None:
    done = cli("sweep", "train", "--dry-run", "--method", "tpe", "--max-runs", "40")

    assert done.stdout.splitlines()[:2] == [b"TRIAL  learning_rate  batch_size", b"1      0.01           2"]
    assert "there are no more combinations" not in done.stderr.decode() or len(done.stdout.splitlines()) == 7
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "no workflow given"),
        ("trian --lr 1,2", "did you mean 'train'?"),
        ("train --batch_sise 1,2", "did you mean 'batch_size'?"),
        ("train --batch_size 5..2", "min 5, which is not below max 2"),
        ("train --learning_rate 0..1e-1:log --max-runs 3", "'scale: log' needs one above 0"),
        ("train --learning_rate 0.0..1.0 --method grid", "infinitely many"),
        ("train --method gird", "gird"),
        ("train --goal up", "up"),
        ("train --stop-early mean", "is not a rule"),
        ("train --metric thing", "does not say whether less or more"),
        ("train --try-first batch_size", "is not NAME=VALUE"),
        ("train --try-first batch_size=9", "'9' is not a value of 'batch_size'"),
        ("--local --runner lab1 train", "can't be used together"),
        ("prepare", "nothing to vary"),
        ("--name not/valid train", "not a valid run name"),
    ],
)
def test_bad_input_is_refused_before_anything_is_submitted(cli: Cli, swept: Path, words: str, said: str) -> None:
    done = cli("sweep", *words.split())

    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_a_workflow_that_is_called_like_a_command(cli: Cli, project: Path) -> None:
    with (project / ".dstack" / "workflows.yaml").open("a") as file:
        file.write("  - {name: list, image: busybox, commands: [sh]}\n")

    assert tried(cli, "--", "list", "--model", "a,b") == [{"model": "a"}, {"model": "b"}]
    assert tried(cli, "--max-runs", "9", "list", "--model", "a,b") == [{"model": "a"}, {"model": "b"}]


def test_help_names_the_variables_of_a_workflow(cli: Cli, project: Path) -> None:
    assert b"--batch_size [BATCH_SIZE]" in cli("sweep", "train", "--help").stdout
    assert b"retry-failed" in cli("sweep", "--help").stdout


def test_what_is_printed_about_a_trial() -> None:
    failed = TrialView(**{**{name: getattr(TRIAL, name) for name in TRIAL.__struct_fields__}, "exit_code": 7})
    failed.status, failed.value, failed.reason = Status.FAILED, None, "it broke"

    assert outcome(TRIAL, VIEW) == "done, loss 0.25 (lr=0.1 opt=adam)"
    assert outcome(failed, VIEW) == "failed with exit code 7 (lr=0.1 opt=adam): it broke"
    assert counts([TRIAL, TRIAL, failed]) == "1 failed, 2 done"


def test_the_end_of_a_sweep_is_the_end_of_the_command() -> None:
    class Told:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def trial(self, trial: TrialView) -> None:
            self.seen.append(trial.run)

        def sweep(self, sweep: SweepView) -> None:
            self.seen.append(sweep.name)

    told = Told()
    assert show_event(SweepEvent(event="trial", trial=TRIAL), told) is None  # type: ignore[arg-type]
    assert show_event(SweepEvent(event="sweep", sweep=VIEW), told) == 0  # type: ignore[arg-type]
    assert told.seen == ["s-1", "s"]
