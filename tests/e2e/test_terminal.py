"""What a person sees at a terminal while real jobs run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import project
from tests.environment.account import Account
from tests.environment.product import Home, program
from tests.unit.cli.terminal import looks, type_into

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
BAR = 'i=0; while [ ! -e go ]; do i=$((i + 1)); printf "\\r\\033[31mstep $i"; sleep 0.2; done; printf "\\rready\\n"'


@pytest.mark.long
def test_bars_of_jobs_that_run_at_once(
    cli: Cli, dstack_home: Home, runner: str, user: Account, busybox: str, tmp_path: Path
) -> None:
    # given
    folder = project(
        tmp_path / "p",
        f"""
        workflows:
          - {{name: prep, image: {busybox}, commands: ['echo made > out'], artifacts: [out]}}
          - {{name: left, image: {busybox}, commands: ['{BAR}'], depends-on: {{workflows: [prep]}}}}
          - {{name: right, image: {busybox}, commands: ['{BAR}'], depends-on: {{workflows: [prep]}}}}
          - {{name: report, image: {busybox}, commands: ['echo end'], depends-on: {{workflows: [left, right]}}}}
        """,
    )

    def go() -> str:
        for tree in user.home.glob(".dstack-host/*/*/jobs/*/workflow"):
            (tree / "go").touch()
        return ""

    # when
    words = [str(program()), "run", "report"]
    steps = (("left   |", ""), ("right  |", go))
    known: dict[str, Any] = {"cwd": folder, "environment": dstack_home.environment, "seconds": 300}
    shown, code = type_into([*words, "--name", "bars"], steps, **known)
    in_a_file = re.sub("\x1b\\[[0-9;]*m", "", cli("logs", "bars").stdout).splitlines()
    again, _ = type_into(words, (), **known)

    # then
    lines = looks(shown)
    assert code == 0
    assert lines[1:6] == [
        "WORKFLOW  PLAN  WHY",
        *(f"{name:<8}  run   it has not run before" for name in ("prep", "left", "right")),
        "report    run   requested by name, so it always runs",
    ]
    assert sorted(line for line in lines[6:] if " | " in line) == [
        "left   | ready",
        "report | end",
        "right  | ready",
    ]
    assert in_a_file == ["left | ready", "right | ready", "report | end"]
    assert "end" in looks(again)
