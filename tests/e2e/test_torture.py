"""Every kind of working tree arrives in a container unchanged, and git gives the same answers about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.unit.snapshot.test_fidelity import root_of, state
from tests.unit.snapshot.trees import CASES, forget_intended

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = Path(__file__).with_name("told.py").read_text()
AT_ONCE = 4
"""Jobs that share a machine."""


def at_home(root: Path) -> dict[str, Any]:
    """Return what the program prints about the user's tree."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root)], env=environment, capture_output=True, text=True, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout)
    told["files"] = {path: about for path, about in told["files"].items() if "ignored" not in path}
    return told


@pytest.mark.long
def test_what_you_have_is_what_runs(cli: Cli, runner: str, tmp_path: Path, python_image: str) -> None:
    projects = {}
    for name, build in CASES.items():
        (tmp_path / name).mkdir()
        projects[name] = build(tmp_path / name / "project")
    roots = {name: root_of(project) for name, project in projects.items()}
    before = {name: state(root) for name, root in roots.items()}

    def run(name: str) -> dict[str, Any]:
        done = cli("run", "job", "-e", f"PROGRAM={PROGRAM}", cwd=projects[name])
        assert done.returncode == 0, (name, done.stderr)
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    with ThreadPoolExecutor(AT_ONCE) as pool:
        there = dict(zip(CASES, pool.map(run, CASES), strict=True))

    assert {name: state(root) for name, root in roots.items()} == before
    for root in roots.values():
        if (root / ".git").exists():
            forget_intended(root)
    expected = {name: at_home(root) for name, root in roots.items()}
    assert {name: differences(there[name], told) for name, told in expected.items() if there[name] != told} == {}
    assert all(told["files"] for told in expected.values())


def differences(there: dict[str, Any], home: dict[str, Any]) -> dict[str, Any]:
    """Return what differs between the job and the user's tree."""
    return {
        key: (there[part].get(key), home[part].get(key))
        for part in ("files", "git")
        for key in there[part].keys() | home[part].keys()
        if there[part].get(key) != home[part].get(key)
    }
