"""What a job is told to have met: who ended it, and what keeps it from going on."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli
from tests.e2e.project import single
from tests.environment.daemon import Daemon
from tests.environment.product import Home, servers
from tests.environment.sshd import Sshd
from tests.environment.throttle import Throttle
from tests.environment.waiting import until

RUNS = "echo begun $DSTACK_ATTEMPT; test $DSTACK_ATTEMPT = 2 || while [ ! -e go ]; do sleep 0.1; done"


def job_of(cli: Cli, run: str) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)["jobs"][0]
    return job


@pytest.fixture
def link(cli: Cli, runner: str, sshd: Sshd) -> Iterator[Throttle]:
    """The way to the runner `far`, the only one that takes jobs."""
    link = Throttle(sshd.port)
    there = [f"{sshd.user}@127.0.0.1:{link.port}", "--identity", str(sshd.identity), "--name", "far"]
    try:
        added = cli("runners", "add", *there, "--root", "~/.dstack-far", "--fingerprint", sshd.fingerprint)
        assert added.returncode == 0, added.stderr
        assert cli("runners", "remove", runner).returncode == 0
        yield link
    finally:
        link.close()


def test_a_restart_of_docker_loses_a_job_and_its_retry_runs(
    cli: Cli, dstack_home: Home, own_dockerd: Daemon, busybox: str, tmp_path: Path
) -> None:
    own_dockerd.stop()
    own_dockerd.start("--live-restore=false")
    assert cli("runners", "add", "local", "--docker", " ".join(own_dockerd.command)).returncode == 0
    folder = single(tmp_path / "p", busybox, RUNS, more="retry: {attempts: 2, on: [lost]}")
    assert cli("run", "job", "--name", "r", "-d", cwd=folder).returncode == 0
    until(lambda: cli("logs", "r").stdout == "begun 1\n", "it runs", 60)

    own_dockerd.stop()
    own_dockerd.start("--live-restore=false")

    assert cli("wait", "r").returncode == 0
    assert cli("logs", "r").stdout == "begun 1\nbegun 2\n"
    (attempt,) = job_of(cli, "r")["attempts"]
    assert (attempt["status"], attempt["reason_code"]) == ("lost", "lost-docker-restarted")


@pytest.mark.long
def test_a_runner_that_refuses_ssh_after_a_submission_is_waited_for(
    cli: Cli, link: Throttle, busybox: str, tmp_path: Path
) -> None:
    folder = single(tmp_path / "p", busybox, "echo ran")
    link.refuse()
    link.cut()
    assert cli("run", "job", "--name", "r", "-d", cwd=folder).returncode == 0

    until(lambda: job_of(cli, "r")["reason_code"] == "runner-unreachable", "it says what it waits for", 60)
    begun = time.monotonic()
    until(lambda: job_of(cli, "r")["status"] != "queued" or time.monotonic() - begun > 20, "20 seconds pass", 60)
    assert job_of(cli, "r")["status"] == "queued"
    link.accept()

    assert cli("wait", "r").returncode == 0
    assert cli("logs", "r").stdout == "ran\n"


@pytest.mark.long
def test_a_connection_that_freezes_during_a_launch_fails_nothing(
    cli: Cli, dstack_home: Home, link: Throttle, busybox: str, tmp_path: Path
) -> None:
    folder = single(tmp_path / "p", busybox, "echo ran")
    link.sent = 2_000
    (folder / "large").write_bytes(os.urandom(20_000))
    assert cli("run", "job", "--name", "r", "-d", cwd=folder).returncode == 0
    until(lambda: job_of(cli, "r")["status"] == "preparing", "it is launched", 60)
    link.frozen = True
    for server in servers(dstack_home.dstack):
        os.kill(server, signal.SIGKILL)
    until(lambda: job_of(cli, "r")["reason_code"] == "runner-unreachable", "it says what it waits for", 60)
    link.sent = None
    link.frozen = False

    assert cli("wait", "r").returncode == 0, job_of(cli, "r")
    assert cli("logs", "r").stdout == "ran\n"
