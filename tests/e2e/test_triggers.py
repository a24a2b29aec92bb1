"""Triggers with a real server, a real remote and a real container; and a server that is killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import git, single
from tests.environment.product import Home, servers
from tests.environment.waiting import until

Cli = Callable[..., Any]


def ticks(cli: Cli, name: str) -> list[dict[str, Any]]:
    shown = cli("triggers", "show", name, "--json")
    assert shown.returncode == 0, shown.stderr
    found: list[dict[str, Any]] = json.loads(shown.stdout)["ticks"]
    return found


@pytest.fixture
def folder(tmp_path: Path, busybox: str) -> Path:
    """A project with triggers, and its remote."""
    made = single(tmp_path / "p", busybox, "cat what")
    (made / "what").write_text("first\n")
    lines = (
        "triggers:",
        "  - {name: pushed, workflow: job, push: {branch: main, every: 1s}, overlap: queue}",
        "  - {name: asked, workflow: job, cron: '0 0 29 2 *'}",
        "",
    )
    with (made / ".dstack" / "workflows.yaml").open("a") as file:
        file.write("\n".join(lines))
    git(made, "add", "-A")
    git(made, "commit", "-qm", "triggers")
    git(tmp_path, "clone", "-q", "--bare", str(made), "remote.git")
    git(made, "remote", "add", "origin", str(tmp_path / "remote.git"))
    return made


def test_a_push_runs_once_although_the_server_is_killed(cli: Cli, dstack_home: Home, runner: str, folder: Path) -> None:
    assert cli("triggers", "apply", "-y", cwd=folder).returncode == 0
    assert cli("triggers", "run", "asked").returncode == 0
    until(lambda: ticks(cli, "asked")[0]["result"] == "done", "the snapshot ran", 120)
    asked = ticks(cli, "asked")[0]["run"]
    shown = json.loads(cli("runs", asked, "--json").stdout)
    assert shown["trigger"] == "asked"
    assert "asked" in cli("runs", asked).stdout
    assert cli("logs", asked).stdout == "first\n"

    (folder / "what").write_text("second\n")
    git(folder, "commit", "-qam", "second")
    git(folder, "push", "-q", "origin", "main")
    until(lambda: ticks(cli, "pushed"), "the push is noticed", 60)
    os.kill(servers(dstack_home.dstack)[0], signal.SIGKILL)
    until(lambda: not servers(dstack_home.dstack), "the server is gone")

    until(lambda: ticks(cli, "pushed")[0]["result"] == "done", "the push ran", 120)

    (tick,) = ticks(cli, "pushed")
    runs = [run for run in json.loads(cli("runs", "--json").stdout) if run["trigger"] == "pushed"]
    assert [run["name"] for run in runs] == [tick["run"]]
    assert cli("logs", tick["run"]).stdout == "second\n"
    assert runs[0]["repo"]["commit"] == git(folder, "rev-parse", "HEAD").strip() == tick["commit"]
    assert cli("triggers", "remove", "pushed", "asked", "-y").returncode == 0


def test_a_server_with_an_active_trigger_stays(cli: Cli, dstack_home: Home, folder: Path) -> None:
    idle = {"DSTACK_IDLE_EXIT": "0.5"}
    assert cli("server", "stop").returncode == 0
    assert cli("triggers", "apply", "-y", cwd=folder, env=idle).returncode == 0
    (pid,) = servers(dstack_home.dstack)
    log = dstack_home.dstack / "server" / "server.log"
    cli("triggers", "remove", "pushed", "-y", env=idle)
    assert servers(dstack_home.dstack) == [pid]

    cli("triggers", "pause", "asked", env=idle)

    until(lambda: "idle for" in log.read_text(), "the idle server leaves")
    cli("triggers", "remove", "asked", "-y")
