"""What a new user tries first: groups without a command, completion in a real shell, logs of what waits, and --json."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dstack.model.api.artifacts import ArtifactView
from dstack.model.job.status import Status
from tests.unit.cli.conftest import ROOT, Alone, Cli, command
from tests.unit.cli.fake_server import State, job_view, run_view

JOB = "0123456789ab"


@pytest.mark.parametrize("group", ["artifacts", "server", "secrets", "server token"])
def test_a_group_alone_shows_its_help(cli: Cli, group: str) -> None:
    done = cli(*group.split())

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == cli(*group.split(), "--help").stdout
    assert b"Commands:" in done.stdout


@pytest.mark.parametrize("group", ["runners", "runs", "tag"])
def test_a_group_that_lists_still_lists(cli: Cli, group: str) -> None:
    assert b"Usage:" not in cli(group).stdout


def test_a_missing_choice_is_named_on_one_line(cli: Cli) -> None:
    done = cli("completion")

    assert done.returncode == 2
    assert done.stderr.splitlines()[0].endswith(b"Choose from: bash, zsh, fish")


RECIPES = {
    "bash": ("bash", "-i", "-c", "_dstack_completion dstack; echo ${COMPREPLY[@]}"),
    "zsh": ("zsh", "-i", "-c", "whence -w _dstack_completion && print ${_comps[dstack]}"),
    "fish": ("fish", "-c", "complete -C 'dstack logs br'"),
}


@pytest.mark.parametrize("shell", RECIPES)
def test_the_recipe_of_completion_works_in_an_empty_home(
    cli: Cli, environment: dict[str, str], server: str, folder: Path, shell: str
) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    programs, home = folder / "bin", folder / "new"
    programs.mkdir()
    home.mkdir()
    (programs / "dstack").write_text(f'#!/bin/sh\nexec {" ".join(command())} "$@"\n')
    (programs / "dstack").chmod(0o755)
    lines = cli("completion", "--help").stdout.decode().splitlines()
    (recipe,) = [line.partition(":")[2] for line in lines if line.strip().startswith(f"{shell}:")]
    known = {**environment, "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "DSTACK_SERVER_URL": server}

    subprocess.run(["sh", "-euc", recipe], env=known, check=True, timeout=60)
    bash = {"COMP_WORDS": "dstack logs br", "COMP_CWORD": "2"} if shell == "bash" else {}
    asked = RECIPES[shell]
    if shell == "bash":
        asked = ("bash", "-i", "-c", f"COMP_WORDS=(dstack logs br); COMP_CWORD=2; {asked[3]}")
    done = subprocess.run(asked, env={**known, **bash}, capture_output=True, text=True, timeout=60, cwd=ROOT)

    wanted = "_dstack_completion" if shell == "zsh" else "brave-otter-7"
    assert wanted in done.stdout.split(), done.stderr


def test_logs_of_one_workflow_of_a_run(cli: Cli, state: State) -> None:
    state.hold(two_jobs(), {"a": b"from prepare\n", "b": b"from train\n"})

    assert cli("logs", "calm-elk-1", "train").stdout == b"from train\n"
    both = cli("logs", "calm-elk-1", "prepare", "train")
    assert both.stdout == b"prepare | from prepare\ntrain | from train\n"


def test_logs_of_several_runs(cli: Cli, state: State) -> None:
    state.hold(two_jobs(), {"a": b"from prepare\n", "b": b"from train\n"})

    done = cli("logs", "brave-otter-7", "calm-elk-1", "--tail", "1")
    lines = ["brave-otter-7/train | three", "calm-elk-1/prepare | from prepare", "calm-elk-1/train | from train"]
    assert done.stdout.decode().splitlines() == lines
    events = json.loads(cli("logs", "brave-otter-7", "calm-elk-1", "--json").stdout)
    assert {event["id"] for event in events} == {JOB, "a", "b"}
    followed = cli("logs", "-f", "calm-elk-1", "train", "--json").stdout.splitlines()
    assert json.loads(followed[-1])["event"] == "run"


def test_logs_of_a_workflow_that_the_run_lacks(cli: Cli, state: State) -> None:
    state.hold(two_jobs())

    done = cli("logs", "calm-elk-1", "trian")

    assert done.returncode == 2
    assert b"'trian' is not a workflow of calm-elk-1, nor a run or job; did you mean 'train'?" in done.stderr
    assert b"hint: dstack logs calm-elk-1 train" in done.stderr


def two_jobs() -> Any:
    return run_view("calm-elk-1", [job_view("a", "prepare", "calm-elk-1"), job_view("b", "train", "calm-elk-1")])


def test_followed_logs_of_a_queued_run_say_what_it_waits_for(alone: Alone, environment: dict[str, str]) -> None:
    name = alone("run", "prepare", "-q", "-d", "--wait-for-runner").stdout.decode().strip()

    follower = subprocess.Popen(command("logs", "-f", name), env=environment, stderr=subprocess.PIPE)

    try:
        assert follower.stderr is not None
        assert follower.stderr.readline() == b"prepare: queued: no runner has been added yet\n"
        alone("hold", name)
        assert follower.stderr.readline().startswith(b"prepare: queued: held by ")
    finally:
        follower.kill()
        follower.communicate()


def test_a_run_whose_jobs_never_started_has_no_log_to_read(cli: Cli, state: State) -> None:
    failed = job_view(JOB, "train", status=Status.FAILED, started_at=None, exit_code=None, reason="no such image")
    state.hold(run_view("brave-otter-7", [failed], status=Status.FAILED, exit_code=125, reason="no such image"))

    assert b"next: dstack runs brave-otter-7" in cli("wait", "brave-otter-7").stderr


def test_the_json_of_validate(cli: Cli, project: Path) -> None:
    assert json.loads(cli("validate", "--json").stdout) == {
        "valid": True,
        "workflows": ["prepare", "train"],
        "warnings": [],
    }
    (project / ".dstack" / "workflows.yaml").write_text("workflows: [{name: a}]")
    wrong = cli("validate", "--json")
    assert (wrong.returncode, json.loads(wrong.stderr)["error"]["code"]) == (2, "invalid-project")


def test_the_json_of_init(cli: Cli, folder: Path) -> None:
    (folder / "new").mkdir()

    done = cli("init", "--json", cwd=folder / "new")

    told = json.loads(done.stdout)
    assert done.stderr == b""
    assert ".dstack/workflows.yaml" in told["files"]
    assert all((folder / "new" / file).is_file() for file in told["files"])
    assert told["workflows"] == ["prepare", "train", "report"]
    again = cli("init", "--json", cwd=folder / "new")
    assert (again.returncode, json.loads(again.stderr)["error"]["code"]) == (2, "conflict")


@pytest.mark.parametrize("verb", ["hold", "release"])
def test_the_json_of_hold(cli: Cli, verb: str) -> None:
    done = cli(verb, "brave-otter-7", "--json")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [run["name"] for run in json.loads(done.stdout)] == ["brave-otter-7"]

    partly = cli(verb, "brave-otter-7", "nope", "--json")
    assert partly.returncode == 2
    assert [run["name"] for run in json.loads(partly.stdout)] == ["brave-otter-7"]
    assert json.loads(partly.stderr)["error"]["code"] == "conflict"


def test_the_json_of_a_download(cli: Cli, state: State, project: Path) -> None:
    nothing = json.loads(cli("artifacts", "download", "brave", "--json", "-o", "o").stdout)
    assert nothing == {"folder": str(project / "o"), "files": 0, "bytes": 0, "present": 0, "partial": []}
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    state.artifacts.append(ArtifactView(job=JOB, workflow="train", path="a", size=1, mode=0o644, sha256=digest))
    state.files[JOB, "a"] = b"x"

    done = cli("artifacts", "download", "brave", "--json", "-o", "o")

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == {**nothing, "files": 1, "bytes": 1}
    assert json.loads(cli("artifacts", "download", "brave", "--json", "-o", "o").stdout)["present"] == 1


def test_the_times_of_metrics(cli: Cli) -> None:
    (job,) = json.loads(cli("runs", "brave-otter-7", "--metrics", "--json").stdout)

    assert job["points"][0]["time"] == "2026-01-31T12:00:00.000Z"


def test_a_token_without_a_server_is_shown(cli: Cli) -> None:
    none = {"DSTACK_SERVER_URL": ""}
    done = cli("config", "--token", "abc", environment=none)
    assert done.returncode == 0
    assert b"is not used until you name its server: dstack config --url URL" in done.stderr
    assert b"token    set, but not used" in done.stdout
    assert json.loads(cli("config", "--json", environment=none).stdout)["token"] is True
    used = cli("config", "--url", "http://127.0.0.1:9", environment=none)
    assert b"token    set\n" in used.stdout
    cli("server", "stop", environment=none)
