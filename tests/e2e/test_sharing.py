"""Results are used again: by tag, and by two runs at the same time."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.project import project
from tests.environment.product import Home
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

BASE = """
workflows:
  - name: base
    image: {image}
    commands: [echo $DSTACK_RUN_NAME > model]
    artifacts: [model]
"""
OTHER = """
workflows:
  - name: tune
    image: {image}
    commands: [cat model]
    depends-on: {{workflows: [":base-model"]}}
  - name: twice
    image: {image}
    commands: [cat model]
    depends-on: {{workflows: [tune, ":base-model"]}}
"""
SLOW = """
workflows:
  - name: slow
    image: {image}
    commands: ["while [ ! -e /data/go ]; do sleep 0.1; done; exit $(cat /data/go)"]
    artifacts: [{{path: made, optional: true}}]
    depends-on: {{repo: {{include: [.gitignore]}}}}
  - name: one
    image: {image}
    commands: [echo one]
    depends-on: {{workflows: [slow]}}
"""


def view(cli: Cli, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)
    return found


def test_a_tag_stands_for_a_run_also_in_another_repository(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    base = project(tmp_path / "base", BASE.format(image=busybox))
    other = project(tmp_path / "other", OTHER.format(image=busybox))
    unknown = cli("run", "tune", cwd=other)
    assert unknown.returncode == 2
    assert "no tag ':base-model'" in unknown.stderr

    assert cli("run", "base", "--name", "first", cwd=base).returncode == 0
    assert cli("tag", "first", "base-model").returncode == 0
    done = cli("run", "twice", cwd=other)
    assert (done.returncode, done.stdout) == (0, "tune | first\ntwice | first\n"), done.stderr

    assert json.loads(cli("runs", ":base-model", "--json").stdout)["name"] == "first"
    assert cli("logs", ":base-model").returncode == 0
    assert cli("artifacts", "download", ":base-model", "model", "-o", tmp_path / "d").returncode == 0
    assert (tmp_path / "d/base/model").read_text() == "first\n"

    assert cli("run", "base", "--name", "second", cwd=base).returncode == 0
    taken = cli("tag", "second", "base-model")
    assert taken.returncode == 2
    assert "the tag ':base-model' already names first" in taken.stderr
    assert cli("tag", "second", "base-model", "--force").returncode == 0
    again = cli("run", "twice", "--name", "moved", cwd=other)
    assert again.stdout == "tune | second\ntwice | second\n"
    assert "dependency :base-model changed" in view(cli, "moved")["jobs"][0]["cache"]["why"]

    assert [tag["name"] for tag in json.loads(cli("tag", "--json").stdout)] == ["base-model"]
    for words in (
        ["logs"],
        ["artifacts", "list"],
        ["artifacts", "download"],
        ["stop"],
        ["wait"],
        ["run", "--from"],
        ["jobs"],
    ):
        assert "no tag ':base-modle'; did you mean 'base-model'?" in cli(*words, ":base-modle", cwd=other).stderr
    assert cli("tag", "--delete", "base-model").returncode == 0
    assert cli("runs", ":base-model").returncode == 2


def test_a_tag_that_can_not_be(cli: Cli, tmp_path: Path, busybox: str) -> None:
    folder = project(tmp_path / "p", OTHER.format(image=busybox).replace(":base-model", ":a b"))

    done = cli("validate", cwd=folder)

    assert done.returncode == 2
    assert "':a b' is not a valid tag" in done.stderr


def started(cli: Cli, home: Home, folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """Start two runs that need the same slow job; return the id of the one that runs, and both jobs."""
    for name in ("left", "right"):
        done = cli("run", "one", "-d", "--name", name, cwd=folder)
        assert done.returncode == 0, done.stderr
    until(lambda: view(cli, "left")["jobs"][0]["status"] == "running", "the slow job runs", 60)
    until(lambda: "waiting for left" in (view(cli, "right")["jobs"][0]["reason"] or ""), "the other one waits")
    return view(cli, "left")["jobs"][0]["id"], [view(cli, name)["jobs"][0] for name in ("left", "right")]


def let_go(docker: list[str], job: str, code: int) -> None:
    script = f"mkdir -p /data; echo {code} > /data/new; mv /data/new /data/go"
    subprocess.run([*docker, "exec", f"dstack-{job}", "/bin/sh", "-c", script], check=True)


def test_two_runs_that_need_the_same_job_share_one(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    folder = project(tmp_path / "p", SLOW.format(image=busybox))
    job, _ = started(cli, dstack_home, folder)

    let_go(docker, job, 0)

    assert cli("wait", "left").returncode == cli("wait", "right").returncode == 0
    shared = view(cli, "right")["jobs"][0]
    assert (shared["cached_from"], shared["cache"]) == (job, {"hit": True, "why": "shared with left"})


def test_when_the_one_that_runs_it_is_stopped_one_of_the_others_does(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    folder = project(tmp_path / "p", SLOW.format(image=busybox))
    started(cli, dstack_home, folder)
    assert cli("run", "one", "-d", "--name", "third", cwd=folder).returncode == 0
    until(lambda: "waiting for left" in (view(cli, "third")["jobs"][0]["reason"] or ""), "the third one waits, too")

    assert cli("stop", "left").returncode == 0

    until(lambda: view(cli, "right")["jobs"][0]["status"] == "running", "the second one runs it", 60)
    until(lambda: "waiting for right" in (view(cli, "third")["jobs"][0]["reason"] or ""), "the third waits for that")
    own = view(cli, "right")["jobs"][0]
    assert "the same job was already in progress, but left " in own["cache"]["why"]
    assert cli("wait", "left").returncode == 143
    let_go(docker, own["id"], 0)
    assert cli("wait", "right").returncode == cli("wait", "third").returncode == 0
    assert view(cli, "third")["jobs"][0]["cache"] == {"hit": True, "why": "shared with right"}


def test_a_shared_job_that_fails_is_run_again_by_the_other(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    folder = project(tmp_path / "p", SLOW.format(image=busybox))
    job, _ = started(cli, dstack_home, folder)

    let_go(docker, job, 7)

    assert cli("wait", "left").returncode == 7
    until(lambda: view(cli, "right")["jobs"][0]["status"] == "running", "the other run does it itself", 60)
    own = view(cli, "right")["jobs"][0]
    assert own["cache"]["why"] == "the same job was already in progress, but left failed"
    let_go(docker, own["id"], 0)
    assert cli("wait", "right").returncode == 0
