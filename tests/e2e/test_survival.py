"""A run survives everything but its host: its commands run once, and its log loses no byte."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import single
from tests.environment.daemon import Daemon
from tests.environment.product import Home
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

COUNTING = """
echo run >> once
n=0
while [ $n -lt 3000 ]; do n=$((n+1)); echo line $n; done
echo half
while [ ! -e /workflow/go ]; do sleep 0.1; done
while [ $n -lt 6000 ]; do n=$((n+1)); echo line $n; done
"""
LINES = [f"line {n}" for n in range(1, 3001)] + ["half"] + [f"line {n}" for n in range(3001, 6001)]


def job_of(cli: Cli, run: str) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)["jobs"][0]
    return job


def begin(cli: Cli, folder: Path, *options: str) -> str:
    """Submit, and wait until half of the log has arrived. Return the job's id."""
    done = cli("run", "job", "--name", "survivor", "-d", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    until(lambda: "half" in cli("logs", "survivor").stdout, "the first half of the log has come", 60)
    return str(job_of(cli, "survivor")["id"])


def finish(cli: Cli, docker: list[str], job: str) -> None:
    """Let the job end, and check that nothing was lost or done twice."""
    subprocess.run([*docker, "exec", f"dstack-{job}", "/bin/sh", "-c", ": > /workflow/go"], check=True)
    waited = cli("wait", "survivor")
    assert waited.returncode == 0, waited.stderr
    assert job_of(cli, "survivor")["status"] == "done"
    assert cli("logs", "survivor").stdout.splitlines() == LINES
    listed = json.loads(cli("artifacts", "list", "survivor", "--json").stdout)
    assert [(entry["path"], entry["size"]) for entry in listed] == [("once", len("run\n"))]


@pytest.fixture
def counting(tmp_path: Path, busybox: str) -> Path:
    return single(tmp_path / "p", busybox, COUNTING, more="artifacts: [once]")


def test_kill_9_of_the_server(cli: Cli, runner: str, docker: list[str], counting: Path) -> None:
    job = begin(cli, counting)
    server = json.loads(cli("server", "status", "--json").stdout)["pid"]

    os.kill(server, signal.SIGKILL)

    assert job_of(cli, "survivor")["status"] == "running"
    assert json.loads(cli("server", "status", "--json").stdout)["pid"] != server
    finish(cli, docker, job)


def test_kill_9_of_the_server_while_somebody_follows(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], counting: Path
) -> None:
    following = dstack_home.popen("run", "job", "--name", "survivor", cwd=counting)
    until(lambda: "half" in cli("logs", "survivor").stdout, "the first half of the log has come", 60)
    os.kill(json.loads(cli("server", "status", "--json").stdout)["pid"], signal.SIGKILL)

    finish(cli, docker, job_of(cli, "survivor")["id"])
    out, _ = following.communicate(timeout=60)

    assert following.returncode == 0
    assert out.decode().splitlines() == LINES


def test_the_ssh_connection_is_cut(cli: Cli, runner: str, docker: list[str], sshd: Sshd, counting: Path) -> None:
    job = begin(cli, counting)

    sshd.cut()

    finish(cli, docker, job)


def test_a_second_docker_start_changes_nothing(cli: Cli, runner: str, docker: list[str], counting: Path) -> None:
    job = begin(cli, counting)

    subprocess.run([*docker, "start", f"dstack-{job}"], check=True, capture_output=True)
    subprocess.run([*docker, "restart", "-t", "0", f"dstack-{job}"], check=True, capture_output=True)

    waited = cli("wait", "survivor")
    assert waited.returncode not in (0, 2)
    assert cli("logs", "survivor").stdout.splitlines() == LINES[:3001]
    listed = json.loads(cli("artifacts", "list", "survivor", "--json").stdout)
    assert [(entry["path"], entry["size"]) for entry in listed] == [("once", len("run\n"))]


def test_kill_9_of_dockerd(cli: Cli, own_dockerd: Daemon, counting: Path) -> None:
    words = " ".join(own_dockerd.command)
    added = cli("runners", "add", "local", "--docker", words)
    assert added.returncode == 0, added.stderr
    job = begin(cli, counting)

    own_dockerd.kill()
    assert job_of(cli, "survivor")["status"] == "running"
    own_dockerd.start()

    finish(cli, own_dockerd.command, job)


def test_100_mb_of_binary_log_arrive_live_and_later(
    cli: Cli, dstack_home: Home, runner: str, python_image: str, tmp_path: Path
) -> None:
    program = """
import hashlib, random, sys
rng, out, digest = random.Random(7), sys.stdout.buffer, hashlib.sha256()
for _ in range(100):
    block = rng.randbytes(1_048_576 - 12) + b"\\0\\r\\n\\xff\\xfe\\r\\r\\0\\0ab\\r"
    digest.update(block)
    out.write(block)
out.flush()
open("digest", "w").write(digest.hexdigest())
"""
    folder = single(tmp_path / "p", python_image, "python3 noise.py", more="artifacts: [digest]")
    (folder / "noise.py").write_text(program)

    following = dstack_home.popen("run", "job", "--name", "noisy", cwd=folder)
    live, said = following.communicate(timeout=240)
    assert following.returncode == 0, said
    later = dstack_home.popen("logs", "noisy")
    stored, _ = later.communicate(timeout=120)
    assert cli("artifacts", "download", "noisy", "-o", tmp_path / "out").returncode == 0
    expected = (tmp_path / "out/job/digest").read_text()

    assert len(live) == len(stored) == 100 * 1_048_576
    assert hashlib.sha256(live).hexdigest() == expected
    assert hashlib.sha256(stored).hexdigest() == expected
