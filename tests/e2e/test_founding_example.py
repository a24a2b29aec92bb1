"""The GPT-2 project over real SSH, as a user who is not root, in real containers."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.environment.account import Account

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

EXAMPLE = ("download-model", "encode-dataset", "finetune-model")


def shown(cli: Cli, *arguments: str, cwd: Path) -> Any:
    done = cli(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def newest(cli: Cli, cwd: Path) -> dict[str, Any]:
    name = shown(cli, "runs", "-n", "1", cwd=cwd)[0]["name"]
    run: dict[str, Any] = shown(cli, "runs", name, cwd=cwd)
    return run


def jobs_of(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {job["workflow"]: job for job in run["jobs"]}


@pytest.fixture
def first(cli: Cli, runner: str, gpt2: Path) -> dict[str, Any]:
    """The run of `dstack run finetune-model --model 117M`."""
    done = cli("run", "finetune-model", "--model", "117M", cwd=gpt2)
    assert done.returncode == 0, done.stderr
    assert "finetune-model | model 117M" in done.stdout
    assert "loss=3.14" in done.stdout
    assert "run_name" not in done.stderr
    assert cli("validate", cwd=gpt2).stderr.count("run_name") == 2  # one sentence about the name that is reserved
    return newest(cli, gpt2)


def test_three_workflows_run_and_the_right_bytes_come_home(
    cli: Cli, first: dict[str, Any], gpt2: Path, tmp_path: Path, user: Account
) -> None:
    jobs = jobs_of(first)
    assert tuple(jobs) == EXAMPLE
    assert {job["status"] for job in jobs.values()} == {"done"}
    assert not any(job["cached"] for job in jobs.values())
    assert {job["runner"] for job in jobs.values()} == {"box"}
    assert first["variables"]["model"] == "117M"
    trained = jobs["finetune-model"]["id"]

    listed = shown(cli, "artifacts", "list", first["name"], cwd=gpt2)
    paths = {(entry["workflow"], entry["path"]) for entry in listed}
    assert ("download-model", "models/117M/hparams.json") in paths
    assert ("encode-dataset", "input.npz") in paths
    assert ("finetune-model", f"checkpoint/{trained}/model-1") in paths
    assert ("finetune-model", f"samples/{trained}/samples-1") in paths

    done = cli("artifacts", "download", first["name"], "-o", tmp_path / "out", cwd=gpt2)
    assert done.returncode == 0, done.stderr
    for entry in listed:
        data = (tmp_path / "out" / entry["workflow"] / entry["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"])
    arguments = json.loads((tmp_path / "out/finetune-model/checkpoint" / trained / "arguments.json").read_text())
    assert arguments["learning_rate"] == "0.00002"
    assert arguments["run_name"] == trained
    assert arguments["twremat_memlimit"] == "12GB"
    assert arguments["memory_saving_gradients"] is False
    assert arguments["val_dataset"] is None


def test_the_second_run_takes_two_from_the_cache_and_says_why(cli: Cli, first: dict[str, Any], gpt2: Path) -> None:
    planned = cli("run", "finetune-model", "--model", "117M", "--dry-run", cwd=gpt2)
    assert planned.returncode == 0, planned.stderr
    assert f"nothing changed since {first['name']}" in planned.stdout + planned.stderr

    again = cli("run", "finetune-model", "--model", "117M", cwd=gpt2)
    assert again.returncode == 0, again.stderr

    jobs = jobs_of(newest(cli, gpt2))
    before = jobs_of(first)
    for name in ("download-model", "encode-dataset"):
        assert jobs[name]["cached"]
        assert jobs[name]["cached_from"] == before[name]["id"]
        assert jobs[name]["cache"] == {"hit": True, "why": f"nothing changed since {first['name']}"}
    assert not jobs["finetune-model"]["cached"]


def test_touching_a_file_reruns_its_workflow_and_the_dependent_and_says_so(
    cli: Cli, first: dict[str, Any], gpt2: Path
) -> None:
    with (gpt2 / "encode.py").open("a") as file:
        file.write("# touched\n")

    done = cli("run", "finetune-model", "--model", "117M", cwd=gpt2)

    assert done.returncode == 0, done.stderr
    jobs = jobs_of(newest(cli, gpt2))
    assert jobs["download-model"]["cached"]
    assert jobs["encode-dataset"]["cache"] == {"hit": False, "why": "encode.py changed"}
    assert "encode.py changed" in done.stderr
    assert jobs["finetune-model"]["cache"]["why"] == "requested by name, so it always runs (encode.py changed)"


def test_what_dependency_and_dependent_share_is_stored_once(cli: Cli, first: dict[str, Any], dstack_home: Any) -> None:
    stored = dstack_home.dstack / "server" / "artifacts" / first["name"]

    one = stored / "download-model/models/117M/hparams.json"
    other = stored / "finetune-model/models/117M/hparams.json"

    assert one.samefile(other)


def test_nothing_is_left_on_the_machine(
    cli: Cli, first: dict[str, Any], gpt2: Path, docker: list[str], user: Account
) -> None:
    done = cli("runners", "remove", "box", cwd=gpt2)

    assert done.returncode == 0, done.stderr
    assert not (user.home / ".dstack-host").exists()
    listed = [*docker, "ps", "-a", "--format", "{{.Names}}"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    assert not {f"dstack-{job['id']}" for job in first["jobs"]} & set(names)
