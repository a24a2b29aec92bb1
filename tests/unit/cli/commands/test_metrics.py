"""`dstack metrics`, `dstack compare`, and runs listed with their metrics."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.cli.output.charts.series import sparkline
from dstack.model.api.results.compare import ComparedMetric, ComparedRun, Comparison
from dstack.model.api.results.metrics import JobSeries, PointView, SeriesView, series_view
from dstack.model.metrics.series import Series
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake_server import State, job_view, run_view

LOG = "Epoch 1/2\nloss=0.5 acc=50%\rEpoch 2/2\nloss=0.25\nloss=nan"


def series(name: str, *values: float) -> SeriesView:
    growing = Series()
    for value in values:
        growing.add(None, 0.0, value)
    return series_view(growing.summary(name), [point for _, point in growing.fresh])


def job_series(workflow: str, *found: SeriesView, refused: dict[str, str] | None = None) -> JobSeries:
    return JobSeries(
        job=f"id-{workflow}",
        run="brave-otter-7",
        workflow=workflow,
        cached_from=None,
        wanted=bool(found or refused),
        series=list(found),
        refused=refused or {},
    )


def compared(name: str, lr: str, loss: float, **changes: object) -> ComparedRun:
    run = ComparedRun(
        name=name,
        workflow="train",
        status="done",
        submitted_at="2026-01-01T00:00:00.000Z",
        variables={"lr": lr},
        commit="c0ffee" * 6 + "c0ff",
        dirty=False,
        changed_files=[],
        image="busybox",
        gpus="",
        seconds=90.0,
        metrics={"loss": ComparedMetric(last=loss, best=loss / 2, best_step=3)},
    )
    return replace(run, **changes)


def test_a_table_for_each_job_with_metrics(cli: Cli, state: State) -> None:
    # given
    state.series = [
        job_series("data"),
        job_series("train", series("loss", 1, 0.5, float("nan")), refused={"x": "its expression is too slow"}),
        job_series("test", series("acc", 0.123456789)),
    ]
    # when
    shown = cli("metrics", "brave", "--name", "loss", "--name", "acc")
    # then
    assert shown.returncode == 0
    assert [line.split() for line in shown.stdout.decode().splitlines()] == [
        ["train:"],
        ["METRIC", "LAST", "MIN", "MAX", "STEP", "VALUES", "CHART"],
        ["loss", "nan", "0.5", "1", "2", "3", "█▁"],
        [],
        ["test:"],
        ["METRIC", "LAST", "MIN", "MAX", "STEP", "VALUES", "CHART"],
        ["acc", "0.123457", "0.123457", "0.123457", "0", "1", "▁"],
    ]
    assert b"'x' is not read: its expression is too slow" in shown.stderr
    assert state.queries == [{"points": "500", "names": "loss,acc"}]


def test_json_and_csv_have_every_point(cli: Cli, state: State) -> None:
    # given
    state.series = [job_series("train", series("loss", 1, float("inf")))]
    # when
    document = json.loads(cli("metrics", "brave", "--json", "--points", "7").stdout)
    rows = list(csv.DictReader(cli("metrics", "brave", "--csv").stdout.decode().splitlines()))
    # then
    assert [point["value"] for point in document[0]["series"][0]["points"]] == [1, "Infinity"]
    assert [(row["job"], row["metric"], row["step"], row["value"]) for row in rows] == [
        ("id-train", "loss", "0", "1.0"),
        ("id-train", "loss", "1", "Infinity"),
    ]
    assert state.queries[0]["points"] == "7"


def test_without_metrics_it_says_what_to_do(cli: Cli, state: State) -> None:
    state.series = [job_series("train")]
    assert b"add `metrics: auto`" in cli("metrics", "brave").stderr
    state.series = [replace(state.series[0], wanted=True)]
    assert b"no metrics were found in the logs of brave so far" in cli("metrics", "brave").stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["metrics"], "which run or job?"),
        (["metrics", "brave", "--csv", "--json"], "--csv can't be used with --json"),
        (["metrics", "test", "none.log"], "none.log can't be read: no such file"),
        (["metrics", "test", "."], "is a directory"),
        (["metrics", "test", "a.log", "trian"], "no workflow 'trian'; did you mean 'train'?"),
        (["metrics", "test", "a.log", "train"], "workflow 'train' has no 'metrics'"),
        (["compare", "a", "b", "--csv", "--json"], "--csv can't be used with --json"),
        (["compare"], "missing argument 'RUN...'"),
        (["runs", "brave", "--sort", "x"], "can't be used with the name of a run"),
        (["runs", "--columns", " , "], "--columns is empty"),
    ],
)
def test_what_can_not_be_done_is_told(cli: Cli, project: Path, arguments: list[str], words: str) -> None:
    (project / "a.log").write_text(LOG)
    done = cli(*arguments)
    assert words in done.stderr.decode()
    assert done.returncode == 2


def test_a_log_is_tried_without_a_server(cli: Cli, project: Path, state: State) -> None:
    # given
    (project / "a.log").write_text(LOG)
    # when
    shown = cli("metrics", "test", "a.log").stdout.decode().splitlines()
    found = json.loads(cli("metrics", "test", "a.log", "--json").stdout)
    rows = cli("metrics", "test", "a.log", "--csv").stdout.decode().splitlines()
    # then
    assert [line.split()[:6] for line in shown[1:]] == [
        ["loss", "nan", "0.25", "0.5", "2", "3"],
        ["acc", "50", "50", "50", "1", "1"],
    ]
    assert [(each["name"], each["count"]) for each in found["series"]] == [("loss", 3), ("acc", 1)]
    assert rows[:2] == ["metric,step,time,value", "loss,1,,0.5"]
    assert state.requests == []


def test_a_log_is_tried_as_a_workflow_says(cli: Cli, project: Path) -> None:
    # given
    metrics = r"{loss: 'loss=(\S+)', gone: 'gone=(\S+)', slow: '(?:\w+\s?)*(\d)$'}"
    workflows = f"workflows:\n  - {{name: t, image: busybox, commands: ['true'], metrics: {metrics}}}\n"
    (project / ".dstack" / "workflows.yaml").write_text(workflows)
    (project / ".dstack" / "configs.yaml").unlink(missing_ok=True)
    (project / "a.log").write_text((LOG + "\n" + "a" * 3000 + "!\n") * 3)
    # when
    done = cli("metrics", "test", "a.log", "t")
    # then
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.decode().splitlines()] == ["METRIC", "slow", "loss"]
    told = done.stderr.decode()
    assert "'gone' matches no line with a number" in told
    assert "'slow' is not read: its regular expression is too slow" in told


def test_a_comparison_shows_only_what_differs(cli: Cli, state: State) -> None:
    # given
    runs = [compared("a-b-1", "0.1", 0.5), compared("a-b-2", "0.2", 0.25, seconds=5.0, changed_files=["x.py", "y.py"])]
    differs = ["variables.lr", "code", "seconds", "metrics.loss"]
    state.comparison = Comparison(runs=runs, differs=differs, best={"loss": "a-b-2"})
    # when
    shown = cli("compare", "a-b-1", "a-b-2", "--sort", "loss").stdout.decode().splitlines()
    rows = list(csv.DictReader(cli("compare", "a-b-1", "a-b-2", "--csv").stdout.decode().splitlines()))
    # then
    assert shown[0].split() == ["RUN", "lr", "CODE", "TOOK", "loss", "best", "loss"]
    assert shown[2].split() == ["a-b-2", "0.2", "c0ffeec0ffee", "5.0s", "0.25", "0.125*"]
    assert shown[3] == "a-b-2 differs from a-b-1 in x.py, y.py"
    assert (rows[1]["SECONDS"], rows[1]["best loss"]) == ("5", "0.125")
    assert state.queries[0] == {"refs": "a-b-1,a-b-2", "sort": "loss"}


def test_equal_runs_are_said_to_be_equal(cli: Cli, state: State) -> None:
    state.comparison = Comparison(runs=[compared("a", "1", 1), compared("b", "1", 1)], differs=[], best={})
    assert b"nothing else differs" in cli("compare", "a", "b").stderr


def test_runs_with_chosen_columns(cli: Cli, state: State) -> None:
    # given
    run = run_view("a-b-1", [job_view("ffffffffffff", "x", run="a-b-1")])
    state.runs.clear()
    state.hold(replace(run, variables={"lr": "0.10"}, metrics={"val_loss": 0.123456789, "lr": 5.0}))
    # when
    shown = cli(
        "runs", "--columns", "lr, val_loss,status,none", "--sort", "val_loss", "--where", "lr<1", "--where", "x=y"
    )
    # then
    assert [line.split() for line in shown.stdout.decode().splitlines()] == [
        ["NAME", "lr", "val_loss", "STATUS", "none"],
        ["a-b-1", "0.10", "0.123457", "done", "-"],
    ]
    asked = {"limit": "20", "names": "lr,val_loss,none", "sort": "val_loss", "where": "lr<1 and x=y"}
    assert state.queries[0] == asked


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], ""),
        ([5.0], "▁"),
        ([1.0, 2.0], "▁█"),
        ([-1e308, 1e308], "▁█"),
        ([float("nan"), 1.0, float("inf"), 2.0], " ▁ █"),
        ([float("nan")], ""),
    ],
)
def test_a_chart_goes_from_the_least_to_the_greatest(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


def test_a_chart_has_a_limited_width() -> None:
    assert len(sparkline([float(number) for number in range(1000)])) == 24


def test_a_point_without_a_time() -> None:
    assert series("loss", 1).last == PointView(step=0, time=None, value=1)
