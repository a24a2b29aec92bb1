"""`dstack server` with a real server in a fresh home, without runners."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from dstack.cli.commands.server.command import disk_words, trouble_words
from dstack.cli.output.words import local
from dstack.client import embedded
from dstack.model.api.server import DiskSpace, TaskTrouble
from tests.environment.waiting import until
from tests.unit.cli.conftest import Alone, command


def status(alone: Alone) -> dict[str, object]:
    found: dict[str, object] = json.loads(alone("server", "status", "--json").stdout)
    return found


def test_a_query_starts_it_and_stop_ends_it(alone: Alone, folder: Path) -> None:
    before = alone("server", "status")
    asked = alone("runs")
    running = status(alone)
    stopped = alone("server", "stop")
    after = alone("server", "status")

    assert (before.returncode, after.returncode) == (75, 75)
    assert (asked.returncode, asked.stdout) == (0, b"")
    assert b"no runs yet" in asked.stderr
    assert running["home"] == str(folder / "home")
    assert running["runs"] == 0
    assert stopped.stderr == b"the server has stopped\n"
    assert alone("server", "stop").stderr == b"no server is running\n"
    assert b"listens on" in alone("server", "logs").stdout


def test_it_comes_back_after_it_was_killed(alone: Alone) -> None:
    alone("runs")
    first = status(alone)["pid"]
    assert isinstance(first, int)
    os.kill(first, signal.SIGKILL)

    assert alone("runs").returncode == 0
    assert status(alone)["pid"] != first


def test_without_a_runner_run_names_the_ways_out(alone: Alone) -> None:
    done = alone("run", "train")

    assert done.returncode == 2
    assert b"dstack runners add HOST" in done.stderr
    assert b"--local" in done.stderr
    assert json.loads(alone("runs", "--json").stdout) == []


def test_a_dry_run_shows_every_job(alone: Alone) -> None:
    plan = json.loads(alone("run", "train", "--dry-run", "--json").stdout)

    assert [job["workflow"] for job in plan["jobs"]] == ["prepare", "train"]
    assert alone("run", "train", "--dry-run").stdout.startswith(b"WORKFLOW")


def test_a_team_server_wants_its_token(alone: Alone, folder: Path) -> None:
    refused = alone("server", "start", "--port", "0")
    started = alone("server", "start", "--port", "0", DSTACK_TOKEN="secret")
    url = str(status(alone)["url"])

    assert refused.returncode == 2
    assert refused.stderr == (
        b"dstack: error: the dstack server did not start: a server on TCP needs a token\n"
        b"hint: make one with `dstack server token create NAME --role admin`, or set DSTACK_TOKEN\n"
    )
    assert started.returncode == 0, started.stderr
    assert url.startswith("http://127.0.0.1:")
    assert alone("runs", DSTACK_SERVER_URL=url).returncode == 2
    assert alone("runs", DSTACK_SERVER_URL=url, DSTACK_TOKEN="secret").returncode == 0
    assert alone("config", "--url", url, "--token", "secret").returncode == 0
    assert alone("runs").returncode == 0


def test_it_leaves_when_idle(alone: Alone, folder: Path) -> None:
    alone("runs", DSTACK_IDLE_EXIT="0.5")

    until(lambda: not embedded.socket_path(folder / "home").exists(), "the idle server has left")


def test_in_the_foreground_until_it_is_told_to_end(
    alone: Alone, environment: dict[str, str], project: Path, folder: Path
) -> None:
    with subprocess.Popen(command("server", "start", "--foreground"), cwd=project, env=environment) as process:
        until(lambda: embedded.answers(folder / "home"), "the server answers")
        assert status(alone)["pid"] == process.pid
        assert alone("server", "start").stderr.startswith(b"the server is already running at ")
        assert alone("server", "start", "--foreground").returncode == 2
        process.terminate()

    assert process.returncode in (0, -signal.SIGTERM)


def test_the_space_and_what_it_means() -> None:
    assert disk_words(DiskSpace(free=20 * 10**9, reserve=5 * 10**8, low=False)) == "20 GB free"
    low = disk_words(DiskSpace(free=13 * 10**6, reserve=5 * 10**8, low=True))
    assert low == "13 MB free, less than the 500 MB that have to be: no run is accepted; to free space: dstack prune"
    full = disk_words(DiskSpace(free=20 * 10**9, reserve=5 * 10**8, low=True))
    assert full.startswith("20 GB free, but no more files: no run is accepted")


def test_a_task_that_fails() -> None:
    since = "2026-01-31T12:00:00.000Z"
    told = trouble_words(TaskTrouble(task="metrics of lab1", count=2, since=since, reason="it is locked", code="x"))

    assert told == f"metrics of lab1: it is locked (2 failures since {local(since)}; it is tried again)"
