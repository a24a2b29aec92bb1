"""Sweeps on a real runner: every combination runs once, whatever happens to the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import project
from tests.environment import account
from tests.environment.account import Account
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

WORKFLOWS = """
workflows:
  - name: prepare
    image: {image}
    commands: ["echo prepared > data"]
    artifacts: [data]
    depends-on: {{config: []}}
  - name: train
    image: {image}
    commands:
      - cat data
      - test "$layers" != "$bad"
      - echo "loss=$lr$layers"
      - for n in 1 2 3 4 5 6 7 8 9; do echo "step=$n loss=$lr$layers"; test "$slow" = no || sleep 0.3; done
      - while [ "$slow" = stop ]; do sleep 0.2; done
      - echo $lr > model
    artifacts: [model]
    stop-grace: 1s
    depends-on: [prepare]
    sweep:
      metric: {{name: loss}}
      params: {{lr: ["1", "2", "3"], layers: {{min: 1, max: 2}}}}
"""
CONFIGS = "configs:\n  train: {lr: 0, layers: 0, slow: no, bad: none}\n"


@pytest.fixture
def tree(tmp_path: Path, busybox: str) -> Path:
    return project(tmp_path / "p", WORKFLOWS.format(image=busybox), CONFIGS)


def shown(cli: Cli, name: str = "s") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("sweep", "show", name, "--json").stdout)
    return found


def jobs_of(cli: Cli, workflow: str) -> list[dict[str, Any]]:
    runs = json.loads(cli("runs", "-n", "1000", "--json").stdout)
    return [job for run in runs for job in run["jobs"] if job["workflow"] == workflow]


def test_a_grid_is_complete_and_its_best_trial_has_a_name(cli: Cli, runner: str, tree: Path, tmp_path: Path) -> None:
    # when
    done = cli("sweep", "train", "--name", "s", "--parallel", "3", cwd=tree)

    # then
    assert done.returncode == 0, done.stderr
    sweep = shown(cli)
    assert (sweep["status"], sweep["method"], sweep["metric"]["goal"]) == ("done", "grid", "minimize")
    tried = [(trial["values"]["lr"], trial["values"]["layers"], trial["value"]) for trial in sweep["trials"]]
    assert tried == [(lr, layers, float(lr + layers)) for lr in "123" for layers in "12"]
    assert [trial["run"] for trial in sweep["trials"]] == [f"s-{number}" for number in range(1, 7)]
    assert sum(not job["cached"] for job in jobs_of(cli, "prepare")) == 1
    assert (sweep["best"]["run"], sweep["best"]["value"]) == ("s-1", 11.0)
    assert "s-6: done, loss 32 (lr=3 layers=2)" in done.stderr
    # and
    assert "loss=11" in cli("logs", "s:best").stdout
    assert cli("tag", "s:best", "good").returncode == 0
    assert cli("artifacts", "download", ":good", "-o", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/train/model").read_text() == "1\n"
    taken = cli("run", "train", "--name", "s-9", cwd=tree)
    assert (taken.returncode, "belongs to the sweep s" in taken.stderr) == (2, True)


def test_failed_trials_are_tried_again_on_demand_and_a_stopped_sweep_goes_on(cli: Cli, runner: str, tree: Path) -> None:
    # given a sweep of which every second trial fails
    done = cli("sweep", "train", "--name", "s", "--bad", "2", "--max-failures", "2", "--parallel", "1", cwd=tree)
    assert done.returncode == 0, done.stderr
    sweep = shown(cli)
    assert (sweep["status"], sweep["reason_code"]) == ("failed", "max-failures")
    assert [trial["status"] for trial in sweep["trials"]] == ["done", "failed", "done", "failed"]
    assert cli("sweep", "retry-failed", "s").returncode == 0
    until(lambda: shown(cli)["trials"][3]["run"] == "s-4.2" and shown(cli)["status"] != "running", "it ended", 60)
    again = shown(cli)
    assert [trial["run"] for trial in again["trials"]] == ["s-1", "s-2.2", "s-3", "s-4.2"]
    # when it may fail more, is stopped, and goes on
    assert cli("sweep", "resume", "s").returncode == 0
    assert cli("sweep", "stop", "s").returncode == 0
    until(lambda: shown(cli)["status"] == "stopped", "it is stopped", 60)
    assert cli("sweep", "resume", "s").returncode == 0
    until(lambda: shown(cli)["status"] == "done", "it is done", 60)
    # then
    points = [tuple(trial["values"].values()) for trial in shown(cli)["trials"]]
    assert len(set(points)) == len(points) == 6
    assert [trial["status"] for trial in shown(cli)["trials"]] == ["done", "failed"] * 3


def test_a_trial_that_loses_is_stopped_and_says_why(cli: Cli, runner: str, tree: Path) -> None:
    # when
    words = ("--lr", "1,2,3,9", "--layers", "1", "--slow", "yes", "--stop-early", "median:3", "--parallel", "4")
    done = cli("sweep", "train", "--name", "s", *words, cwd=tree)

    # then
    assert done.returncode == 0, done.stderr
    worst = shown(cli)["trials"][3]
    assert (worst["status"], worst["reason_code"], worst["value"]) == ("stopped", "beaten", 91.0)
    assert "loss 91 at step" in worst["reason"]
    assert "worse than the median of 3 other trials, 21" in worst["reason"]
    assert json.loads(cli("runs", "s-4", "--json").stdout)["reason_code"] == "beaten"
    assert {trial["status"] for trial in shown(cli)["trials"][:1]} == {"done"}


def survives(
    cli: Cli, tree: Path, *, trials: int, parallel: int, every: float, halfway: Callable[[], object] = int
) -> None:
    """Kill the server every so many seconds while a sweep runs, and call `halfway` once. Each of its points must run
    once."""
    words = ("--method", "random", "--seed", "7", "--lr", f"1..{10 * trials}", "--layers", "1..9")
    words = (*words, "--max-runs", str(trials), "--parallel", str(parallel), "--slow", "yes", "--name", "s")
    expected = json.loads(cli("sweep", "train", *words, "--dry-run", "--json", cwd=tree).stdout)["trials"]
    assert cli("sweep", "train", *words, "-d", cwd=tree).returncode == 0
    kills, last, limit = 0, time.monotonic(), time.monotonic() + 300 + 30 * trials
    waiting = [halfway]
    while not finished(cli):
        assert time.monotonic() < limit, shown(cli)
        if waiting and len(shown(cli)["trials"]) > trials / 2:
            waiting.pop()()
        if time.monotonic() - last > every:
            os.kill(json.loads(cli("server", "status", "--json").stdout)["pid"], signal.SIGKILL)
            kills += 1
            assert shown(cli), "the next server has started"
            last = time.monotonic()
    assert kills >= 3

    sweep = shown(cli)
    assert sweep["status"] == "done", sweep
    assert [trial["values"] for trial in sweep["trials"]] == [trial["values"] for trial in expected]
    assert {trial["status"] for trial in sweep["trials"]} == {"done"}
    trained = jobs_of(cli, "train")
    assert sorted(job["run"] for job in trained) == sorted(f"s-{number}" for number in range(1, trials + 1))
    assert {job["attempt"] for job in trained} == {1}
    for trial in sweep["trials"]:
        assert cli("logs", trial["run"]).stdout.count("step=9 ") == 1


def finished(cli: Cli) -> bool:
    return bool(shown(cli)["status"] != "running")


def test_kills_of_the_server_neither_lose_nor_double_a_trial(cli: Cli, runner: str, tree: Path) -> None:
    survives(cli, tree, trials=8, parallel=3, every=2.0)


@pytest.fixture
def second_runner(cli: Cli, runner: str, user: Account, sshd: Sshd, session_folder: Path) -> Iterator[str]:
    """Another runner: another account and SSH server of the same machine."""
    person = account.create(f"dstack-u-{os.getpid()}", session_folder / "home2", account.docker_group())
    server = Sshd(session_folder / "sshd2", person.name)
    server.start()
    try:
        address = ("--identity", str(server.identity), "--fingerprint", server.fingerprint, "--max-jobs", "6")
        added = cli("runners", "add", f"{server.user}@{server.host}:{server.port}", "--name", "other", *address)
        assert added.returncode == 0, added.stderr
        yield "other"
    finally:
        server.close()
        account.remove(person)


@pytest.mark.long
def test_60_trials_on_two_runners_under_a_server_that_is_killed_every_5_seconds(
    cli: Cli, runner: str, second_runner: str, tree: Path
) -> None:
    def drain() -> None:
        assert cli("runners", "drain", runner, "--reason", "half of the sweep is over").returncode == 0

    assert cli("runners", "set", runner, "--max-jobs", "6").returncode == 0
    survives(cli, tree, trials=60, parallel=6, every=5.0, halfway=drain)
    assert {job["runner"] for job in jobs_of(cli, "train")} == {runner, second_runner}
