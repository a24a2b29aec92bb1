"""Runs that go, and what stays."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.project import project
from tests.environment.product import Home
from tests.environment.s3 import BUCKET, S3
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

WORKFLOWS = """
workflows:
  - name: base
    image: {image}
    commands: [echo base | tee made]
    artifacts: [made]
    depends-on: {{repo: {{include: [.gitignore]}}}}
  - name: top
    image: {image}
    commands: [cat made | tee $DSTACK_RUN_NAME, echo it > own]
    artifacts: [own]
    depends-on: {{workflows: [base]}}
"""


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    return project(tmp_path / "p", WORKFLOWS.format(image=busybox))


@pytest.fixture(params=["folder", "s3"])
def objects(
    request: pytest.FixtureRequest, cli: Cli, dstack_home: Home, s3: S3, runner: str, tmp_path: Path
) -> Callable[[], set[str]]:
    """What is stored, each as RUN/WORKFLOW/PATH."""
    top = tmp_path / "storage"
    if request.param == "s3":
        assert cli("config", "--storage", f"s3://{BUCKET}/x", "--endpoint-url", s3.url).returncode == 0
        return lambda: {key.removeprefix("x/") for key in s3.objects}
    assert cli("config", "--storage", top).returncode == 0
    return lambda: {
        str(path.relative_to(top)) for path in top.rglob("*") if path.is_file() and ".content" not in path.parts
    }


def names(cli: Cli) -> list[str]:
    return [run["name"] for run in json.loads(cli("runs", "--json").stdout)]


def test_what_others_use_stays_until_they_go(cli: Cli, objects: Callable[[], set[str]], folder: Path) -> None:
    for name in ("first", "second"):
        assert cli("run", "top", "--name", name, cwd=folder).returncode == 0
    files = {"manifest.json", "own"}
    assert objects() == {f"{run}/top/{f}" for run in ("first", "second") for f in files} | {
        "first/base/made",
        "first/base/manifest.json",
    }

    deleted = cli("runs", "delete", "first", "--json")

    assert deleted.returncode == 0, deleted.stderr
    assert json.loads(deleted.stdout)[0]["kept"] == ["base"]
    assert names(cli) == ["second"]
    assert cli("runs", "first").returncode == 2
    assert objects() == {"second/top/own", "second/top/manifest.json", "first/base/made", "first/base/manifest.json"}
    assert "base | base\n" in cli("logs", "second").stdout
    assert cli("run", "top", "--name", "third", cwd=folder).returncode == 0

    until(lambda: cli("runs", "delete", "second", "third", "-y").returncode in (0, 2), "they go")
    until(lambda: cli("prune", "--keep-last", "0").returncode == 0 and not objects(), "nothing is left")
    assert names(cli) == []


def test_prune(cli: Cli, objects: Callable[[], set[str]], folder: Path) -> None:
    for name in ("one", "two", "three", "four"):
        assert cli("run", "base", "--name", name, cwd=folder).returncode == 0
    assert cli("tag", "one", "keep").returncode == 0
    assert cli("prune").returncode == 2
    assert cli("prune", "--older-than", "soon").returncode == 2

    shown = cli("prune", "--keep-last", "1", "--dry-run", "--json")
    assert [each["run"] for each in json.loads(shown.stdout)] == ["two", "three"]
    assert json.loads(cli("prune", "--keep-last", "1", "--older-than", "1h", "--json").stdout) == []
    assert names(cli) == ["four", "three", "two", "one"]

    assert cli("prune", "--keep-last", "1").returncode == 0
    assert names(cli) == ["four", "one"]
    assert {path.split("/")[0] for path in objects()} == {"one", "four"}
    refused = cli("runs", "delete", "four", "one")
    assert refused.returncode == 2
    assert "one has the tag ':keep'" in refused.stderr
    assert names(cli) == ["four", "one"]
