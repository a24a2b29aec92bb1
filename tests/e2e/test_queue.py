"""The queue: which job starts first, why others wait, and what a container gets of its machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dstack.model.text.units import seconds
from tests.e2e.project import project, single
from tests.environment.account import Account
from tests.environment.product import Home
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

UNTIL_GO = "while [ ! -e /workflow/go ]; do sleep 0.1; done"


def run_of(cli: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("runs", name, "--json").stdout)
    return found


def submit(cli: Cli, folder: Path, name: str, *options: str, workflow: str = "job") -> None:
    done = cli("run", workflow, "--name", name, "-d", *options, cwd=folder)
    assert done.returncode == 0, done.stderr


def has(cli: Cli, name: str, status: str) -> None:
    until(lambda: run_of(cli, name)["status"] == status, f"{name} is {status}", 60)


@pytest.fixture
def narrow(cli: Cli, runner: str) -> str:
    """A project whose jobs take two thirds of the runner's CPUs, so that one runs at a time."""
    cpus = json.loads(cli("runners", "--json").stdout)[0]["cpus"]
    return f"{cpus * 2 / 3:.2f}"


@pytest.fixture
def queueing(tmp_path: Path, busybox: str, narrow: str) -> Path:
    return single(tmp_path / "p", busybox, UNTIL_GO, more=f"resources: {{cpu: {narrow}}}")


def test_what_waits_says_why_and_the_order_is_priority_then_age(cli: Cli, queueing: Path) -> None:
    submit(cli, queueing, "first")
    has(cli, "first", "running")
    for name, options in {"old": (), "young": (), "vip": ("--priority", "7")}.items():
        submit(cli, queueing, name, *options)
    until(lambda: run_of(cli, "vip")["jobs"][0]["position"] == 1, "the one of higher priority is next", 30)

    old = run_of(cli, "old")
    assert [run_of(cli, name)["jobs"][0]["position"] for name in ("vip", "old", "young")] == [1, 2, 3]
    assert "CPUs free" in old["reason"]
    assert "'s first holds " in old["reason"]
    listed = cli("runs").stdout
    assert "no. 2 in the queue: job: needs " in listed

    assert cli("stop", "first", "--abort", "-y").returncode == 0
    has(cli, "vip", "running")
    assert run_of(cli, "old")["status"] == "queued"
    assert cli("stop", "--workflow", "job", "--abort", "-y").returncode == 0
    until(lambda: all(run_of(cli, name)["status"] == "stopped" for name in ("vip", "old", "young")), "all ended", 60)
    assert cli("stop", "--workflow", "nothing").returncode == 0


def test_a_preemptible_job_gives_way_and_goes_on_later(cli: Cli, tmp_path: Path, busybox: str, narrow: str) -> None:
    resume = 'if [ -e saved ]; then echo "attempt $DSTACK_ATTEMPT has what $(cat saved) left"; exit 0; fi'
    save = 'trap "echo attempt $DSTACK_ATTEMPT > saved; exit 0" TERM'
    more = f"preemptible: true\nartifacts: [saved]\nresources: {{cpu: {narrow}}}"
    cheap = single(tmp_path / "p", busybox, resume, save, "echo begun", UNTIL_GO, more=more)
    dear = single(tmp_path / "q", busybox, "echo important", more=f"priority: 5\nresources: {{cpu: {narrow}}}")
    submit(cli, cheap, "cheap")
    until(lambda: "begun" in cli("logs", "cheap").stdout, "it has begun", 60)
    submit(cli, cheap, "equal", "--gpus", "0")

    dearly = cli("run", "job", "--name", "dear", cwd=dear)
    ended = cli("wait", "cheap")

    assert (dearly.returncode, dearly.stdout) == (0, "important\n")
    assert ended.returncode == 0
    job = run_of(cli, "cheap")["jobs"][0]
    assert (job["attempt"], job["status"]) == (2, "done")
    (first,) = job["attempts"]
    assert (first["status"], first["exit_code"]) == ("stopped", 143)
    assert first["reason"].endswith("'s dear")
    assert "attempt 2 has what attempt 1 left" in cli("logs", "cheap").stdout
    assert run_of(cli, "equal")["jobs"][0]["attempt"] == 1
    assert cli("stop", "--all", "--abort", "-y").returncode == 0


def test_hold_and_release(cli: Cli, queueing: Path) -> None:
    submit(cli, queueing, "first")
    has(cli, "first", "running")
    submit(cli, queueing, "second")
    submit(cli, queueing, "third")

    assert cli("hold", "second").returncode == 0
    until(lambda: "held by " in (run_of(cli, "second")["reason"] or ""), "it says that it is held", 30)
    assert "dstack release second" in run_of(cli, "second")["reason"]
    again = cli("hold", "first")
    assert (again.returncode, "no queued job" in again.stderr) == (2, True)
    assert cli("stop", "first", "--abort", "-y").returncode == 0
    has(cli, "third", "running")
    assert run_of(cli, "second")["status"] == "queued"

    assert cli("stop", "third", "--abort", "-y").returncode == 0
    assert cli("release", "second").returncode == 0
    has(cli, "second", "running")
    assert cli("stop", "second", "--abort", "-y").returncode == 0


def test_a_run_that_may_not_wait_longer_is_withdrawn(cli: Cli, dstack_home: Home, queueing: Path) -> None:
    submit(cli, queueing, "first")
    has(cli, "first", "running")

    withdrawn = cli("run", "job", "--name", "hasty", "--timeout", "1s", cwd=queueing)
    in_time = cli("run", "job", "--name", "easy", "--timeout", "1h", "-d", cwd=queueing)

    assert withdrawn.returncode == 75
    hasty = run_of(cli, "hasty")
    assert hasty["status"] == "stopped"
    assert hasty["exit_code"] == 75
    assert hasty["reason"].startswith("job: withdrawn after 1s in the queue: needs ")
    assert in_time.returncode == 0
    assert cli("wait", "hasty").returncode == 75
    assert cli("stop", "--all", "--abort", "-y").returncode == 0
    assert seconds(hasty["finished_at"]) - seconds(hasty["submitted_at"]) < 10


def test_one_at_a_time_and_once_only(cli: Cli, queueing: Path) -> None:
    submit(cli, queueing, "first", "--singleton", "--idempotency-key", "night/1")

    second = cli("run", "job", "--singleton", "-d", cwd=queueing)
    same = cli("run", "job", "--singleton", "--idempotency-key", "night/1", "-d", "-q", cwd=queueing)
    other = cli("run", "job", "--idempotency-key", "night/2", "-d", "-q", cwd=queueing)

    assert second.returncode == 75
    assert "first of " in second.stderr
    assert (same.returncode, same.stdout.strip()) == (0, "first")
    assert other.stdout.strip() not in ("first", "")
    assert cli("stop", "--all", "--abort", "-y").returncode == 0
    until(lambda: run_of(cli, "first")["status"] == "stopped", "it has ended", 60)
    assert cli("run", "job", "--idempotency-key", "night/1", cwd=queueing).returncode == 143
    assert len(json.loads(cli("runs", "--json").stdout)) == 2


def test_the_same_moment(cli: Cli, dstack_home: Home, queueing: Path) -> None:
    def at_once(*options: str) -> list[tuple[int, str]]:
        started = [dstack_home.popen("run", "job", "-d", "-q", *options, cwd=queueing) for _ in range(4)]
        told = [(process.communicate(timeout=120)[0].decode().strip(), process.returncode) for process in started]
        return sorted((code, name) for name, code in told)

    single = at_once("--singleton")
    assert [code for code, _ in single] == [0, 75, 75, 75]
    same = at_once("--idempotency-key", "night/7")
    assert {code for code, _ in same} == {0}
    assert len({name for _, name in same}) == 1
    named = at_once("--name", "taken")
    assert named == [(0, "taken"), (2, ""), (2, ""), (2, "")]
    assert len(json.loads(cli("runs", "--json").stdout)) == 3
    assert cli("stop", "--all", "--abort", "-y").returncode == 0


def test_a_container_is_held_to_what_it_asked_for(
    cli: Cli, runner: str, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    more = "resources: {cpu: 0.5, memory: 64MB, shm-size: 8MB, disk: 1KB}"
    folder = single(tmp_path / "p", busybox, "df -k /dev/shm | tail -n 1", UNTIL_GO, more=more)
    submit(cli, folder, "small")
    until(lambda: "shm" in cli("logs", "small").stdout, "it runs", 60)
    job = run_of(cli, "small")["jobs"][0]["id"]
    wanted = "{{.HostConfig.NanoCpus}} {{.HostConfig.Memory}} {{.HostConfig.MemorySwap}}"
    said = subprocess.run(
        [*docker, "inspect", "-f", wanted, f"dstack-{job}"], capture_output=True, text=True, check=True
    )

    assert said.stdout.split() == ["500000000", str(64 * 1024**2), str(64 * 1024**2)]
    assert cli("logs", "small").stdout.split()[1] == str(8 * 1024)
    assert cli("stop", "small", "--abort", "-y").returncode == 0


def test_what_cannot_be_is_refused_with_the_nearest_miss_unless_it_is_to_wait(
    cli: Cli, runner: str, tmp_path: Path, busybox: str
) -> None:
    folder = single(tmp_path / "p", busybox, "true", more="resources: {memory: 900TB}")

    refused = cli("run", "job", cwd=folder)
    waits = cli("run", "job", "--wait-for-runner", "--timeout", "1s", cwd=folder)

    assert refused.returncode == 2
    assert "it needs 900 TB of memory; the closest runner is box with " in refused.stderr
    assert waits.returncode == 75
    assert "it needs 900 TB of memory" in waits.stderr


def test_a_workflow_may_say_where_it_runs(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    text = "workflows:\n" + "".join(
        f"  - {{name: {name}, image: {busybox}, commands: [echo $DSTACK_RUNNER], runners: [{where}]}}\n"
        for name, where in {"here": "box", "nowhere": "mars"}.items()
    )
    folder = project(tmp_path / "p", text)

    here = cli("run", "here", cwd=folder)
    nowhere = cli("run", "nowhere", cwd=folder)

    assert (here.returncode, here.stdout) == (0, "box\n")
    assert nowhere.returncode == 2
    assert "no runner has the name or label 'mars'" in nowhere.stderr


def test_a_job_goes_where_what_it_needs_is(
    cli: Cli, runner: str, sshd: Sshd, user: Account, tmp_path: Path, busybox: str
) -> None:
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    keys = ("--identity", str(sshd.identity), "--fingerprint", sshd.fingerprint)
    assert cli("runners", "add", address, "--name", "late", "--root", "~/late", *keys).returncode == 0
    text = f"""
        workflows:
          - {{name: make, image: {busybox}, commands: [echo made > out, echo $DSTACK_RUNNER], artifacts: [out]}}
          - name: use
            image: {busybox}
            commands: [cat out, echo $DSTACK_RUNNER]
            depends-on: {{workflows: [make]}}
          - {{name: other, image: {busybox}, commands: [echo $DSTACK_RUNNER]}}
        """
    folder = project(tmp_path / "p", text)

    first = cli("run", "make", cwd=folder)
    on_late = cli("run", "make", "--runner", "late", "--no-cache", cwd=folder)
    assert cli("run", "other", "--runner", "late", "-q", cwd=folder).returncode == 0
    use = cli("run", "use", cwd=folder)
    (folder / "new").write_text("other code")
    other = cli("run", "other", cwd=folder)

    assert (first.stdout, on_late.stdout) == ("box\n", "late\n")
    assert use.stdout == "use | made\nuse | late\n"
    assert other.stdout == "box\n"
    assert cli("runners", "remove", "late").returncode == 0


def test_a_users_gpus_are_limited(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, "true", more="resources: {gpu: 2}")
    assert cli("config", "--max-gpus-per-user", "1").returncode == 0

    refused = cli("run", "job", cwd=folder)

    assert json.loads(cli("config", "--json").stdout)["max_gpus_per_user"] == 1
    assert refused.returncode == 2
    assert "it needs 2 GPUs; the limit per user is 1" in refused.stderr
    assert cli("config", "--max-gpus-per-user", "").returncode == 0
    assert json.loads(cli("config", "--json").stdout)["max_gpus_per_user"] is None
    assert cli("config", "--max-gpus-per-user", "some").returncode == 2
