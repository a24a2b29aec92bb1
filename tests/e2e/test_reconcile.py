"""A server asks its machines what is there: what it does not know is adopted or shown, and nothing runs twice."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstack.model.paths import ServerLayout
from tests.e2e.project import single
from tests.environment.account import Account
from tests.environment.product import Home, servers
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
COMMANDS = "echo begun >> /workflow/once; while [ ! -e /workflow/go ]; do sleep 0.1; done; cat once"


@pytest.fixture
def waiting(tmp_path: Path, busybox: str) -> Path:
    """A job that runs until it is told to end, and notes how often it began."""
    return single(tmp_path / "p", busybox, COMMANDS, more="artifacts: [once]")


def run_of(cli: Cli, name: str) -> dict[str, Any] | None:
    done = cli("runs", name, "--json")
    return json.loads(done.stdout) if done.returncode == 0 else None


def status_of(cli: Cli, name: str) -> str | None:
    run = run_of(cli, name)
    return run["status"] if run else None


def begin(cli: Cli, folder: Path, name: str) -> str:
    """Submit, and wait until the commands run. Returns the job's id."""
    done = cli("run", "job", "--name", name, "-d", cwd=folder)
    assert done.returncode == 0, done.stderr
    until(lambda: status_of(cli, name) == "running", f"{name} runs", 60)
    run = run_of(cli, name)
    assert run is not None
    return str(run["jobs"][0]["id"])


def let_end(docker: list[str], job: str) -> None:
    subprocess.run([*docker, "exec", f"dstack-{job}", "/bin/sh", "-c", ": > /workflow/go"], check=True)


def kill(home: Home) -> Path:
    """Kill the server; return its database, which nobody has open then."""
    for process in servers(home.dstack):
        os.kill(process, signal.SIGKILL)
    until(lambda: not servers(home.dstack), "the server has ended")
    with ServerLayout(home.dstack).lock.open("w") as lock:  # until the last thread has ended
        fcntl.flock(lock, fcntl.LOCK_EX)
    return home.dstack / "server" / "state.db"


def change(database: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(sql, values)


def done_once(cli: Cli, name: str) -> None:
    waited = cli("wait", name)
    assert waited.returncode == 0, waited.stderr
    assert cli("logs", name).stdout == "begun\n"


def test_a_job_that_the_record_does_not_know_to_have_started_is_adopted(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], waiting: Path
) -> None:
    # Given a job that runs, and a record from before its placement
    job = begin(cli, waiting, "early")
    database = kill(dstack_home)
    forget = "json_set(data, '$.status', 'queued', '$.runner', NULL, '$.launching', json('false'), '$.launch', NULL)"
    change(database, f"UPDATE jobs SET status = 'queued', data = {forget} WHERE id = ?", job)

    # When the server starts
    until(lambda: status_of(cli, "early") == "running", "the job is adopted", 30)

    # Then its commands ran once, and it ends as usual
    let_end(docker, job)
    done_once(cli, "early")


def test_an_empty_server_finds_its_jobs(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], waiting: Path
) -> None:
    # Given a job that runs, one that has ended meanwhile, and a server whose database is gone
    job, ended = begin(cli, waiting, "going"), begin(cli, waiting, "gone-by")
    database = kill(dstack_home)
    let_end(docker, ended)
    definition = definition_of(database)
    for left in database.parent.glob("state.db*"):
        left.unlink()
    assert status_of(cli, "going") is None

    # When the machine is added again
    assert cli("runners", "add", *definition).returncode == 0

    # Then both are there, under their names, and end as they would have
    done_once(cli, "gone-by")
    assert status_of(cli, "going") == "running"
    let_end(docker, job)
    done_once(cli, "going")
    listed = json.loads(cli("artifacts", "list", "going", "--json").stdout)
    assert [entry["path"] for entry in listed] == ["once"]


def definition_of(database: Path) -> list[str]:
    """What to type to add the only runner again."""
    with sqlite3.connect(database) as connection:
        data = json.loads(connection.execute("SELECT data FROM runners").fetchone()[0])
    address = data["address"]
    where = f"{address['user']}@{address['host']}:{address['port']}"
    shown = subprocess.run(
        ["ssh-keygen", "-lf", "-"], input=data["host_key"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    return [where, "--name", data["name"], "--identity", address["identity"], "--fingerprint", shown]


def test_what_no_job_owns_is_shown_and_stays_until_somebody_removes_it(
    cli: Cli, dstack_home: Home, runner: str, user: Account, docker: list[str], waiting: Path
) -> None:
    # Given a job that runs, which an older version launched, and a state that does not know it
    job = begin(cli, waiting, "lost-track")
    database = kill(dstack_home)
    for record in user.home.glob(f".dstack-host/*/*/jobs/{job}/record"):
        record.unlink()
    change(database, "DELETE FROM jobs")
    change(database, "DELETE FROM runs")

    # When the machine is checked
    found = json.loads(cli("runners", "check", "box", "--json").stdout)

    # Then it is shown, with what to type, and still runs
    assert found["orphans"] == [{"name": job, "what": "running", "run": None, "workflow": None}]
    shown = cli("runners", "check", "box")
    assert f"dstack runners clean box {job}" in shown.stderr
    assert "dstack runners check box" in cli("runners").stderr
    assert containers(docker, job) == 1

    # And what was typed removes it
    assert cli("runners", "clean", "box", "nothing").returncode == 2
    assert cli("runners", "clean", "box", job).returncode == 0
    assert containers(docker, job) == 0
    assert not list(user.home.glob(f".dstack-host/*/*/jobs/{job}"))
    assert json.loads(cli("runners", "check", "box", "--json").stdout)["orphans"] == []


def containers(docker: list[str], job: str) -> int:
    words = [*docker, "ps", "-aq", "--filter", f"name=dstack-{job}"]
    return len(subprocess.run(words, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.long
def test_a_server_on_a_copied_home_leaves_the_machines_alone(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], waiting: Path
) -> None:
    # Given a home that was copied while a job runs
    job = begin(cli, waiting, "shared")
    copy = Home()
    copy.environment["HOME"] = str(dstack_home.path)
    try:
        shutil.copytree(dstack_home.dstack, copy.dstack, ignore=shutil.ignore_patterns("socket"))

        # When the copy's server starts
        assert state(copy.run)[0] == "unusable"

        # Then it says whose copy it is and what to type, and does nothing there; the first one follows the job
        assert str(dstack_home.dstack) in str(state(copy.run)[1])
        assert "dstack server identity --new" in copy.run("runners").stderr
        until(lambda: reason(copy.run, "shared") == "server-copied", "the job's reason says so, too", 60)
        assert state(cli) == ("ready", None)
        let_end(docker, job)
        done_once(cli, "shared")

        # And once the copy takes over, the first one notices, and does nothing there any more
        again = begin(cli, waiting, "second")
        assert copy.run("server", "identity", "--take-over").returncode == 0
        until(lambda: state(copy.run)[0] == "ready", "the copy drives the machine", 60)
        until(lambda: state(cli)[0] == "unusable", "the first server notices", 60)
        assert str(copy.dstack) in str(state(cli)[1])
        until(lambda: status_of(copy.run, "second") == "running", "the copy adopts what it did not know", 60)
        let_end(docker, again)
        done_once(copy.run, "second")

        # And with an id of its own, each has its own jobs
        assert copy.run("server", "identity", "--new").returncode == 0
        assert cli("server", "identity", "--take-over").returncode == 0
        for server in (copy.run, cli):
            until(lambda server=server: state(server)[0] == "ready", "both are ready", 60)  # type: ignore[misc]
    finally:
        copy.close()


@pytest.mark.long
def test_a_database_that_was_put_back_by_hand_repeats_nothing(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], waiting: Path, tmp_path: Path
) -> None:
    # Given a copy of the database in which one job is queued that has been launched since, and another has ended
    assert cli("runners", "drain", "box").returncode == 0
    for name in ("running", "ended"):
        assert cli("run", "job", "--name", name, "-d", cwd=waiting).returncode == 0
    with sqlite3.connect(dstack_home.dstack / "server" / "state.db") as old, sqlite3.connect(tmp_path / "copy") as new:
        old.backup(new)
    assert cli("runners", "resume", "box").returncode == 0
    jobs = {}
    for name in ("running", "ended"):
        until(lambda name=name: status_of(cli, name) == "running", f"{name} runs", 60)  # type: ignore[misc]
        run = run_of(cli, name)
        assert run is not None
        jobs[name] = run["jobs"][0]["id"]
    let_end(docker, jobs["ended"])
    done_once(cli, "ended")
    until(lambda: containers(docker, jobs["ended"]) == 0, "its container is removed", 60)

    # When that copy is put back under a stopped server
    database = kill(dstack_home)
    for left in database.parent.glob("state.db*"):
        left.unlink()
    shutil.copy(tmp_path / "copy", database)
    assert cli("runners", "resume", "box").returncode == 0

    # Then each has run once
    until(lambda: status_of(cli, "running") == "running", "it is adopted", 60)
    done_once(cli, "ended")
    let_end(docker, jobs["running"])
    done_once(cli, "running")


def reason(cli: Cli, name: str) -> str | None:
    run = run_of(cli, name)
    return run["jobs"][0]["reason_code"] if run else None


def state(cli: Cli) -> tuple[str, str | None]:
    found = json.loads(cli("runners", "--json").stdout)[0]
    return found["state"], found["reason"]


def test_yesterdays_state_is_put_back(
    cli: Cli, dstack_home: Home, runner: str, docker: list[str], waiting: Path, tmp_path: Path
) -> None:
    # Given a backup that was made while one job ran and another waited
    running = begin(cli, waiting, "running")
    assert cli("run", "job", "--name", "held", "-d", cwd=waiting).returncode == 0
    until(lambda: status_of(cli, "held") == "running", "both run", 60)
    file = tmp_path / "state.backup"
    made = cli("server", "backup", str(file))
    assert made.returncode == 0, made.stderr
    assert file.stat().st_mode & 0o777 == 0o600

    # And what has happened since: one has ended, and a third began
    let_end(docker, running)
    done_once(cli, "running")
    until(lambda: containers(docker, running) == 0, "its container is removed", 60)
    later = begin(cli, waiting, "later")

    # When the backup is put back
    put = cli("server", "restore", str(file), "-y")
    assert put.returncode == 0, put.stderr

    # Then the one that ended is done, as its stored artifacts say, and the other two run on
    done_once(cli, "running")
    for name in ("held", "later"):
        until(lambda name=name: status_of(cli, name) == "running", f"{name} is followed", 60)  # type: ignore[misc]
    held = run_of(cli, "held")
    assert held is not None
    for job, name in ((held["jobs"][0]["id"], "held"), (later, "later")):
        let_end(docker, job)
        done_once(cli, name)


def test_a_damaged_database_is_said_and_what_it_says_helps(cli: Cli, dstack_home: Home, tmp_path: Path) -> None:
    # Given a backup, and a database that was damaged since
    dstack_home.serve()
    file = tmp_path / "state.backup"
    assert cli("config", "--max-gpus-per-user", "3").returncode == 0
    assert cli("server", "backup", str(file)).returncode == 0
    damage(cli, dstack_home)

    # When somebody uses it
    refused = cli("runs", "--json")

    # Then the message names what helps, and both ways do
    said = json.loads(refused.stderr)["error"]
    assert (refused.returncode, said["code"]) == (125, "state-damaged")
    assert "dstack server restore FILE" in said["hint"]
    typed = said["hint"].split("`")[1]
    assert cli("server", "restore", str(file), "-y").returncode == 0
    assert json.loads(cli("config", "--json").stdout)["max_gpus_per_user"] == 3
    damage(cli, dstack_home)
    subprocess.run(["sh", "-c", typed], check=True)
    assert json.loads(cli("runs", "--json").stdout) == []


def damage(cli: Cli, home: Home) -> None:
    """Stop the server, and overwrite its database."""
    assert cli("server", "stop").returncode == 0
    database = home.dstack / "server" / "state.db"
    database.write_bytes(b"\xa5" * database.stat().st_size)
