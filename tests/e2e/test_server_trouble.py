"""The server's own disk is full, or its database locked: nothing hangs, nothing is lost, and what is wrong is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import git, single
from tests.environment import needs
from tests.environment.product import Home
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SIZE = 64
"""Size of the server's disk in MB."""
LOCK = """
import sqlite3, sys
sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None).execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""
TALKS = """
n=0; while [ $n -lt 2000 ]; do n=$((n+1)); echo line $n; done; echo half
while [ ! -e /workflow/go ]; do sleep 0.1; done
while [ $n -lt 60000 ]; do n=$((n+1)); echo line $n; done; echo made >made
"""
SAID = "".join([f"line {n}\n" for n in range(1, 2001)] + ["half\n"] + [f"line {n}\n" for n in range(2001, 60001)])


@pytest.fixture
def dstack_home(dstack_home: Home) -> Iterator[Home]:
    """A home whose state is on a small disk of its own."""
    needs.root("a disk")
    disk = dstack_home.path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", disk], capture_output=True, text=True
    )
    if done.returncode:
        needs.missing(f"a file system can't be mounted here: {done.stderr.strip()}")
    home, dstack_home.dstack = dstack_home.dstack, disk / "home"
    dstack_home.environment["DSTACK_HOME"] = str(dstack_home.dstack)
    try:
        yield dstack_home
        dstack_home.run("server", "stop")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
        dstack_home.dstack = home


@contextmanager
def locked(home: Home) -> Iterator[None]:
    """Another program holds the lock of the server's database."""
    words = [sys.executable, "-c", LOCK, str(home.dstack / "server" / "state.db")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        yield
        holder.communicate()


@contextmanager
def full(home: Home) -> Iterator[None]:
    """The server's disk has no space left."""
    ballast = home.dstack / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 12))
    yield
    ballast.unlink()


@pytest.fixture
def talking(tmp_path: Path, busybox: str) -> Path:
    return single(tmp_path / "p", busybox, TALKS, more="artifacts: [made]")


def begin(cli: Cli, folder: Path, name: str) -> str:
    """Start a run and wait for the first half of its log; return its job's id."""
    done = cli("run", "job", "--local", "--name", name, "-d", cwd=folder)
    assert done.returncode == 0, done.stderr
    until(lambda: "half" in cli("logs", name).stdout, "the first half of the log has come", 60)
    return str(job_of(cli, name)["id"])


def go_on(docker: list[str], job: str) -> None:
    """Let a job write the rest of its log and end."""
    subprocess.run([*docker, "exec", f"dstack-{job}", "/bin/sh", "-c", ": > /workflow/go"], check=True)


def job_of(cli: Cli, run: str) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)["jobs"][0]
    return job


def status(cli: Cli) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(cli("server", "status", "--json").stdout)
    return told


def pauses(command: subprocess.Popen[bytes]) -> bool:
    """Whether the command sleeps. Raises AssertionError if it has ended."""
    assert command.poll() is None, command.communicate()
    return "nanosleep" in Path(f"/proc/{command.pid}/wchan").read_text()


def check_whole(cli: Cli, run: str) -> None:
    """The job ended as it really did, and its log has each byte once."""
    assert cli("wait", run).returncode == 0
    assert job_of(cli, run)["status"] == "done"
    assert cli("logs", run).stdout == SAID


@pytest.mark.parametrize("seconds", [3.0, pytest.param(65.0, marks=pytest.mark.long)])
def test_the_database_is_locked(
    cli: Cli, dstack_home: Home, docker: list[str], talking: Path, tmp_path: Path, seconds: float
) -> None:
    job = begin(cli, talking, "first")
    with locked(dstack_home):
        end = time.monotonic() + seconds
        go_on(docker, job)
        until(lambda: status(cli)["troubles"], "the server says what fails", 30)
        until(lambda: job_of(cli, "first")["reason_code"] == "server-trouble", "the job says why it waits", 30)

        asked = time.monotonic()
        assert "half" in cli("logs", "first").stdout
        assert cli("runners").returncode == 0
        assert time.monotonic() - asked < 20

        if seconds > 30:
            refused = cli("stop", "-y", "first")
            assert (refused.returncode, refused.stderr.count("\n")) == (75, 2), refused.stderr
            assert "another program keeps the server's state locked" in refused.stderr
        time.sleep(max(0.0, end - time.monotonic()))

    check_whole(cli, "first")
    assert f"job {job}" not in {trouble["task"] for trouble in status(cli)["troubles"]}


def test_a_command_waits_for_a_short_lock(cli: Cli, dstack_home: Home, talking: Path) -> None:
    begin(cli, talking, "first")
    with locked(dstack_home):
        stopping = dstack_home.popen("stop", "-y", "first")
        until(lambda: pauses(stopping), "the command was refused, and pauses before it tries again", 60)

    _, said = stopping.communicate(timeout=60)
    assert stopping.returncode == 0, said
    assert cli("wait", "first").returncode == 143


def test_the_disk_is_full(cli: Cli, dstack_home: Home, docker: list[str], talking: Path) -> None:
    job = begin(cli, talking, "first")
    with full(dstack_home):
        go_on(docker, job)
        until(lambda: job_of(cli, "first")["reason_code"] == "server-disk-full", "the job says why it waits", 60)
        assert job_of(cli, "first")["status"] == "running"

        told = status(cli)
        assert told["disk"]["low"]
        assert f"job {job}" in {trouble["task"] for trouble in told["troubles"]}
        assert "no run is accepted" in cli("server", "status").stdout
        refused = cli("run", "job", "--local", "-d", cwd=talking)
        assert refused.returncode == 75
        assert "nothing was submitted: the server's disk is full" in refused.stderr
        assert "dstack prune" in refused.stderr

    check_whole(cli, "first")
    assert cli("artifacts", "list", "first").returncode == 0
    assert cli("run", "job", "--local", "--name", "second", "-d", cwd=talking).returncode == 0
    cli("stop", "-y", "--abort", "second")


def test_what_does_not_fit_is_refused_before_it_is_sent(cli: Cli, dstack_home: Home, talking: Path) -> None:
    dstack_home.serve()
    (talking / "large").write_bytes(os.urandom(SIZE // 2 * 10**6))

    refused = cli("run", "job", "--local", "-d", cwd=talking)

    assert refused.returncode == 75, refused.stderr
    assert "nothing was submitted: the server's disk is full" in refused.stderr
    assert list((dstack_home.dstack / "server" / "incoming").iterdir()) == []


@pytest.mark.parametrize("killed", ["command", "server"])
def test_nothing_is_left_of_a_submission_that_was_cut(
    cli: Cli, dstack_home: Home, talking: Path, busybox: str, killed: str
) -> None:
    incoming = dstack_home.dstack / "server" / "incoming"
    dstack_home.serve()
    (talking / "large").write_bytes(os.urandom(20 * 10**6))
    git(talking, "add", "-A")
    server = status(cli)["pid"]
    sending = dstack_home.popen("run", "job", "--local", "-d", cwd=talking)

    until(lambda: any(path.stat().st_size for path in incoming.iterdir()), "the server receives")
    os.kill(sending.pid if killed == "command" else server, signal.SIGKILL)
    sending.communicate(timeout=60)

    until(lambda: cli("runs").returncode == 0 and not list(incoming.iterdir()), "nothing is left", 60)
    cli("stop", "-y", "--abort", "--all")


@pytest.mark.long
def test_prune_frees_a_full_disk(cli: Cli, dstack_home: Home, docker: list[str], talking: Path) -> None:
    go_on(docker, begin(cli, talking, "first"))
    assert cli("wait", "first").returncode == 0
    with full(dstack_home):
        before = status(cli)["disk"]["free"]

        pruned = cli("prune", "--keep-last", "0", "-y")

        assert pruned.returncode == 0, pruned.stderr
        until(lambda: status(cli)["disk"]["free"] > before, "there is space", 60)
        assert json.loads(cli("runs", "--json").stdout) == []


@pytest.mark.long
def test_an_artifact_that_does_not_fit_is_not_fetched(
    cli: Cli, dstack_home: Home, tmp_path: Path, busybox: str
) -> None:
    large = single(tmp_path / "p", busybox, f"head -c {SIZE}000000 /dev/zero >made", more="artifacts: [made]")
    assert cli("run", "job", "--local", "--name", "first", "-d", cwd=large).returncode == 0

    until(lambda: job_of(cli, "first")["reason_code"] == "server-disk-full", "the job says why it waits", 60)

    job = job_of(cli, "first")
    assert (job["status"], "could not be stored since" in job["reason"]) == ("uploading", True)
    assert cli("stop", "-y", "--abort", "first").returncode == 0
    assert cli("wait", "first").returncode == 143


@pytest.mark.long
@pytest.mark.parametrize("trouble", [locked, full])
def test_a_server_that_is_killed_in_trouble_starts_again(
    cli: Cli,
    dstack_home: Home,
    docker: list[str],
    talking: Path,
    trouble: Callable[[Home], AbstractContextManager[None]],
) -> None:
    job = begin(cli, talking, "first")
    with trouble(dstack_home):
        os.kill(status(cli)["pid"], signal.SIGKILL)
        go_on(docker, job)
        shown = cli("runs")
        assert shown.returncode == 0 or "the server's disk is full" in shown.stderr, shown.stderr

    check_whole(cli, "first")


@pytest.mark.long
def test_a_job_whose_time_is_up_while_the_database_is_locked(
    cli: Cli, dstack_home: Home, tmp_path: Path, busybox: str
) -> None:
    endless = single(tmp_path / "p", busybox, "echo half; sleep 60", more="max-duration: 3s\nstop-grace: 1s")
    begin(cli, endless, "first")
    with locked(dstack_home):
        until(lambda: "in time" in str(status(cli)["troubles"]), "it can't be ended now", 30)

    assert cli("wait", "first").returncode == 124
    assert job_of(cli, "first")["reason_code"] == "max-duration"
