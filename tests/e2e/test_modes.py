"""Permissions and empty folders arrive over real SSH for any user of a job, are shown, cached and replayed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environment.account import Account
from tests.environment.waiting import until

from .project import git, project

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

LISTED = "find . -path ./.git -prune -o ! -name made -exec stat -c '%a %n' {} + | sort"


@pytest.fixture
def closed(tmp_path: Path, busybox: str) -> Path:
    """A project that only its owner can read, with a folder that nobody can write to."""
    workflows = f"""
    workflows:
      - name: before
        image: {busybox}
        commands: ["echo made > results/made"]
        artifacts: [results/made]
        depends-on: {{repo: {{include: [secret, data, results]}}}}
      - name: job
        image: {busybox}
        user: 1234
        commands: ["{LISTED}", "cat secret results/made", "id -u"]
        depends-on: {{workflows: [before]}}
    """
    root = project(tmp_path / "project", workflows, commit=False)
    (root / "results").mkdir()
    (root / "results/kept").write_text("kept\n")
    (root / "secret").write_text("secret\n")
    (root / "data/raw").mkdir(parents=True)
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "all")
    for path, mode in (("results/kept", 0o440), ("secret", 0o600), ("data", 0o2770), ("results", 0o555), ("", 0o700)):
        (root / path).chmod(mode)
    return root


def at_home(root: Path) -> str:
    return subprocess.run(["sh", "-c", LISTED], cwd=root, capture_output=True, text=True, check=True).stdout


def of_job(log: str) -> str:
    lines = (line.partition("| ") for line in log.splitlines(keepends=True))
    return "".join(text for workflow, _, text in lines if workflow.startswith("job"))


def test_all_of_it_for_any_user(cli: Cli, runner: str, user: Account, closed: Path, tmp_path: Path) -> None:
    home = at_home(closed)
    assert "2770 ./data\n" in home
    assert "700 .\n" in home
    first = cli("run", "job", "--name", "first", cwd=closed)
    assert first.returncode == 0, first.stderr
    assert of_job(first.stdout) == f"{home}secret\nmade\n1234\n"

    closed.chmod(0o770)
    (closed / "secret").chmod(0o640)
    plan = cli("run", "job", "--dry-run", cwd=closed)
    assert "before    cached" in plan.stdout, plan.stdout + plan.stderr
    assert "0555  results" in plan.stdout
    assert "data/raw/" in plan.stdout
    (closed / "secret").chmod(0o444)
    plan = cli("run", "job", "--dry-run", "--json", cwd=closed)
    told = json.loads(plan.stdout)
    assert told["jobs"][0]["cache"] == {"hit": False, "why": "permissions of secret changed"}
    assert {"path": "secret", "mode": "0444"} in told["modes"]
    assert told["empty_folders"] == ["data/raw"]
    (closed / "secret").chmod(0o600)
    (closed / "data/more").mkdir()
    plan = cli("run", "job", "--dry-run", cwd=closed)
    assert "folder data/more/ added" in plan.stdout

    patch = cli("runs", "first", "--diff", cwd=tmp_path).stdout
    assert "# mode 0600 secret\n" in patch
    assert "# empty folder data/raw\n" in patch
    again = cli("run", "--from", "first", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert of_job(again.stdout) == of_job(first.stdout)

    until(lambda: not list(user.home.glob(".dstack-host/*/*/jobs/*")), "what can't be written to is removed")
