"""Metrics of a job that really prints them, under a server that is killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import single
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

STEPS = 400
PRINTING = f"""
n=0
while [ $n -lt {STEPS} ]; do
  n=$((n+1)); printf 'step %d: loss=0.%03d\\r' $n $n
  [ $((n % 100)) != 0 ] || while [ ! -e /workflow/go$n ]; do sleep 0.05; done
done
printf 'acc=5e-1'
"""


@pytest.fixture
def printing(tmp_path: Path, busybox: str) -> Path:
    return single(tmp_path / "p", busybox, PRINTING, more="metrics: auto")


def series_of(cli: Cli, ref: str) -> dict[str, Any]:
    (job,) = json.loads(cli("metrics", ref, "--json", "--points", "2048").stdout)
    return {each["name"]: each for each in job["series"]}


def count_of(cli: Cli, ref: str) -> int:
    found = series_of(cli, ref).get("loss")
    return int(found["count"]) if found else 0


def test_kill_9_in_the_middle_of_a_log(cli: Cli, runner: str, docker: list[str], printing: Path) -> None:
    # given
    begun = cli("run", "job", "--name", "curve", "-d", cwd=printing)
    assert begun.returncode == 0, begun.stderr
    job = json.loads(cli("runs", "curve", "--json").stdout)["jobs"][0]["id"]
    # when
    for printed in range(100, STEPS + 1, 100):
        until(lambda printed=printed: count_of(cli, "curve") >= printed, "what was printed is read", 60)  # type: ignore[misc]
        server = json.loads(cli("server", "status", "--json").stdout)["pid"]
        go = ["/bin/sh", "-c", f": > /workflow/go{printed}"]
        subprocess.run([*docker, "exec", f"dstack-{job}", *go], check=True)
        os.kill(server, signal.SIGKILL)
    waited = cli("wait", "curve")
    # then
    assert waited.returncode == 0, waited.stderr
    found = series_of(cli, "curve")
    assert [(point["step"], point["value"]) for point in found["loss"]["points"]] == [
        (step, step / 1000) for step in range(1, STEPS + 1)
    ]
    assert (found["loss"]["count"], found["loss"]["min"]["step"], found["loss"]["max"]["step"]) == (STEPS, 1, STEPS)
    assert found["acc"]["last"]["value"] == 0.5
    rows = list(csv.DictReader(cli("metrics", job, "--csv", "--name", "acc").stdout.splitlines()))
    assert [(row["metric"], row["value"], row["run"]) for row in rows] == [("acc", "0.5", "curve")]


def test_a_cached_job_shows_the_metrics_of_its_source(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    # given
    folder = single(
        tmp_path / "p", busybox, "echo loss=0.25; echo > made", more="metrics: {loss: 'loss=(\\S+)'}\nartifacts: [made]"
    )
    more = f"  - {{name: next, image: '{busybox}', commands: ['true'], depends-on: [job]}}\n"
    with (folder / ".dstack" / "workflows.yaml").open("a") as file:
        file.write(more)
    # when
    runs = [cli("run", "next", "--name", name, cwd=folder) for name in ("one", "two")]
    # then
    assert [run.returncode for run in runs] == [0, 0], runs
    cached = json.loads(cli("metrics", "two", "--json").stdout)[0]
    assert cached["cached_from"] == json.loads(cli("runs", "one", "--json").stdout)["jobs"][0]["id"]
    assert [(each["name"], each["last"]["value"]) for each in cached["series"]] == [("loss", 0.25)]
    # and when
    assert cli("runs", "delete", "two", "one", "-y").returncode == 0
    # then
    assert cli("metrics", "two").returncode == 2


def test_runs_are_compared_and_found(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    # given
    command = 'echo "step 1: val_loss=$loss"; echo x'
    folder = single(tmp_path / "p", busybox, command, more="metrics: auto")
    (folder / ".dstack" / "configs.yaml").write_text("configs: {job: {loss: 0.5}}\n")
    for name, loss in (("one", "0.5"), ("two", "0.25")):
        assert cli("run", "job", "--loss", loss, "--name", name, cwd=folder).returncode == 0
        (folder / "changed.txt").write_text(name)
    # when
    found = json.loads(cli("compare", "one", "two", "--sort", "val_loss", "--json").stdout)
    shown = cli("compare", "one", "two")
    listed = cli("runs", "--columns", "loss,val_loss", "--sort", "val_loss", "--where", "val_loss<1").stdout
    unknown = cli("runs", "--sort", "val_los")
    # then
    assert [run["name"] for run in found["runs"]] == ["two", "one"]
    assert {"variables.loss", "code", "metrics.val_loss"} <= set(found["differs"])
    assert found["best"] == {"val_loss": "two"}
    assert found["runs"][1]["changed_files"] == ["changed.txt"]
    assert "two differs from one in changed.txt" in shown.stdout
    assert [line.split()[:3] for line in listed.splitlines()[1:]] == [["two", "0.25", "0.25"], ["one", "0.5", "0.5"]]
    assert (unknown.returncode, "did you mean 'val_loss'?" in unknown.stderr) == (2, True)
