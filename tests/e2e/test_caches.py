"""Folders that stay on a runner between jobs of a repository."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import project
from tests.environment.account import Account
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

WORKFLOWS = """
workflows:
  - name: fill
    image: {image}
    commands:
      - id -u && stat -c %u /root/.cache/$model && mkdir -m 700 /root/.cache/$model/closed
      - umask 077 && echo first > /root/.cache/$model/closed/one && echo two > /root/.cache/$model/two
      - dd if=/dev/urandom of=/root/.cache/$model/closed/large bs=1024 count=64 2> /dev/null
    cache: [/root/.cache/$model]
  - name: read
    image: {image}
    commands: [cd /root/.cache/124M, cat closed/one two, echo more >> closed/one, stat -c %u ., touch closed/new]
    cache: [/root/.cache/124M]
    user: "1234"
  - name: wait
    image: {image}
    commands: [ls /root/.cache/124M, 'until [ -e /root/.cache/124M/go ]; do sleep 0.1; done', echo went]
    cache: [/root/.cache/124M]
  - name: release
    image: {image}
    commands: [touch /root/.cache/124M/go]
    cache: [/root/.cache/124M]
"""


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    return project(tmp_path / "p", WORKFLOWS.format(image=busybox), "configs: {global: {model: 124M}}\n")


def run(cli: Cli, workflow: str, folder: Path, *options: str) -> str:
    done = cli("run", workflow, *options, cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def pruned(cli: Cli, *options: str) -> list[dict[str, Any]]:
    done = cli("prune", *options, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_jobs_of_a_repository_share_them_and_others_do_not(
    cli: Cli, runner: str, folder: Path, tmp_path: Path, busybox: str
) -> None:
    assert run(cli, "fill", folder) == "0\n0\n"
    assert run(cli, "read", folder) == "first\ntwo\n1234\n"

    other = project(tmp_path / "other", WORKFLOWS.format(image=busybox), "configs: {global: {model: 124M}}\n")
    assert run(cli, "fill", other) == "0\n0\n"
    assert cli("run", "fill", "--model", "345M", cwd=folder).returncode == 0


def test_what_a_job_uses_stays_and_the_rest_can_go(cli: Cli, runner: str, folder: Path, user: Account) -> None:
    run(cli, "fill", folder)
    run(cli, "fill", folder, "--model", "345M")
    run(cli, "wait", folder, "-d", "--name", "waits")
    until(lambda: "two" in cli("logs", "waits").stdout, "it runs", 60)

    assert pruned(cli, "--older-than", "1h") == []
    assert pruned(cli, "--keep-last", "10") == []
    shown = pruned(cli, "--caches", "--dry-run")
    assert {(each["runner"], each["cache"]) for each in shown} == {
        (runner, f"/root/.cache/{m}") for m in ("124M", "345M")
    }
    assert all(each["bytes"] >= 65536 for each in shown), "what root closed is counted"
    assert [each["cache"] for each in pruned(cli, "--caches")] == ["/root/.cache/345M"]

    run(cli, "release", folder)
    assert cli("wait", "waits").returncode == 0
    assert cli("logs", "waits").stdout.endswith("went\n")
    assert [each["cache"] for each in pruned(cli, "--caches")] == ["/root/.cache/124M"]
    assert pruned(cli, "--caches", "--dry-run") == []
    top = user.home / ".dstack-host"
    assert not list(top.glob("*/*/caches*/*"))

    run(cli, "fill", folder)
    assert cli("runners", "remove", runner).returncode == 0
    assert not top.exists()
