"""A stop works at once, whatever the job is doing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import project, single
from tests.environment.account import Account
from tests.environment.product import Home, servers
from tests.environment.pushing import BIG, push
from tests.environment.registry import Registry
from tests.environment.s3 import BUCKET, S3
from tests.environment.sshd import Sshd
from tests.environment.throttle import Throttle
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SIZE = 4_000_000
AT_ONCE = 15
"""Seconds. The grace of the jobs is ten minutes, what is slow would take as long."""

WORKFLOWS = """
workflows:
  - {{name: queued, image: {image}, commands: ["true"], depends-on: {{workflows: [running]}}}}
  - name: running
    image: {image}
    commands: [echo ready, while true; do sleep 0.1; done]
    stop-grace: 10m
    artifacts: [{{path: made, optional: true}}]
  - {{name: pulling, image: {slow}, commands: ["true"]}}
  - {{name: uploading, image: {image}, commands: [head -c {size} /dev/urandom > large], artifacts: [large]}}
"""


@pytest.fixture
def slow_image(tmp_path: Path, docker: list[str], busybox: str) -> Iterator[str]:
    """An image whose pull would take ten minutes."""
    registry = Registry(tmp_path / "registry")
    try:
        image = push(docker, registry, busybox, "team/slow:1", size=BIG)
        registry.way.speed = BIG / 600
        yield image
    finally:
        registry.close()


@pytest.fixture
def slow_storage(cli: Cli, s3: S3) -> Iterator[Throttle]:
    """Storage in S3 that takes ten minutes for an artifact."""
    way = Throttle(s3.port)
    try:
        done = cli("config", "--storage", f"s3://{BUCKET}/team", "--endpoint-url", f"http://127.0.0.1:{way.port}")
        assert done.returncode == 0, done.stderr
        way.sent = SIZE / 600
        yield way
    finally:
        way.close()


def run_of(cli: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("runs", name, "--json").stdout)
    return found


def busy(cli: Cli, folder: Path, names: dict[str, str]) -> None:
    """Start one run per workflow, and wait until each does what its name says."""
    for name, workflow in names.items():
        assert cli("run", workflow, "--name", name, "-d", cwd=folder).returncode == 0

    def doing(name: str, workflow: str) -> bool:
        job = {job["workflow"]: job for job in run_of(cli, name)["jobs"]}[workflow]
        if workflow == "pulling":
            return "layers" in (job["reason"] or "")
        return bool(job["status"] == workflow) and (workflow != "running" or "ready" in cli("logs", name).stdout)

    for name, workflow in names.items():
        until(lambda: doing(name, workflow), f"{name} is {workflow}", 60)  # noqa: B023


@pytest.fixture
def folder(tmp_path: Path, slow_storage: Throttle, runner: str, busybox: str, slow_image: str) -> Path:
    return project(tmp_path / "p", WORKFLOWS.format(image=busybox, slow=slow_image, size=SIZE))


def told(cli: Cli, name: str, words: str) -> str:
    """Wait until the run's reason contains these words; return it."""
    return str(until(lambda: words in (run_of(cli, name)["reason"] or "") and run_of(cli, name)["reason"], words, 60))


def test_each_state(cli: Cli, folder: Path, slow_storage: Throttle, user: Account, docker: list[str], s3: S3) -> None:
    states = ("queued", "running", "pulling", "uploading")
    busy(cli, folder, {f"{state}-1": state for state in states})
    took: dict[str, float] = {}
    for name in ("queued-1", "uploading-1", "pulling-1", "running-1"):
        start = time.monotonic()
        if name == "uploading-1":
            done = cli("stop", name)
            assert (
                "stopping once its artifacts are uploaded; to discard them, run `dstack stop --abort uploading-1`"
                in done.stderr
            )
            assert "dstack stop --abort uploading-1" in told(cli, name, "stopping: ")
            assert time.monotonic() - start < AT_ONCE
            told(cli, name, "stopping: 0 B of 4 MB are stored")
            slow_storage.sent = None
            start = time.monotonic()
        assert cli("stop", name).returncode == 0
        assert cli("wait", name, timeout=60).returncode == 143
        took[name] = time.monotonic() - start
    reasons = {name: {job["workflow"]: job["reason"] for job in run_of(cli, name)["jobs"]} for name in took}
    slow_storage.sent = SIZE / 600
    busy(cli, folder, {f"{state}-2": state for state in states})
    start = time.monotonic()
    assert cli("stop", "--workflow", "uploading", "--abort", "-y").returncode == 0
    assert cli("wait", "uploading-2", timeout=60).returncode == 143
    assert cli("stop", "--all", "--abort", "-y").returncode == 0
    for state in states:
        assert cli("wait", f"{state}-2", timeout=60).returncode == 143
    took["all"] = time.monotonic() - start
    aborted = {state: run_of(cli, f"{state}-2") for state in states}

    assert {name: seconds for name, seconds in took.items() if seconds > AT_ONCE} == {}
    assert reasons["queued-1"] == {"queued": "stopped before it started", "running": "stopped by dstack stop"}
    assert reasons["running-1"] == {"running": "stopped by dstack stop"}
    assert reasons["pulling-1"] == {"pulling": "stopped before it started"}
    said = "stopped by dstack stop while its artifacts were being stored; its commands had ended"
    assert reasons["uploading-1"] == {"uploading": said}
    kept = json.loads(s3.objects["team/uploading-1/uploading/manifest.json"])
    assert (kept["status"], [file["size"] for file in kept["files"]]) == ("stopped", [SIZE])
    assert run_of(cli, "uploading-1")["jobs"][0]["artifacts"] == {"files": 1, "bytes": SIZE}
    assert {run["status"] for run in aborted.values()} == {"stopped"}
    assert "aborted; nothing was stored" in aborted["uploading"]["reason"]
    assert not [key for key in s3.objects if key.endswith("manifest.json") and "/uploading-2" in key]
    listed = [*docker, "ps", "-aq", "--filter", "name=dstack-", "--filter", f"volume={user.home}"]
    until(lambda: not subprocess.run(listed, capture_output=True, check=True).stdout, "no container is left", 30)
    until(lambda: not at_work(user), "nothing uploads or pulls on the machine any more", 30)


def test_while_artifacts_come_through_the_server(
    cli: Cli, dstack_home: Home, sshd: Sshd, user: Account, runner: str, busybox: str, tmp_path: Path
) -> None:
    """The server is killed after the stop. What had arrived for an aborted job is pruned."""
    way = Throttle(sshd.port)
    try:
        there = [f"{sshd.user}@127.0.0.1:{way.port}", "--identity", str(sshd.identity), "--name", "far"]
        added = cli("runners", "add", *there, "--root", "~/.dstack-far", "--fingerprint", sshd.fingerprint)
        assert added.returncode == 0, added.stderr
        made = f"echo $DSTACK_RUN_NAME > first; head -c {SIZE} /dev/urandom > large"
        folder = single(
            tmp_path / "p", busybox, made, "while [ ! -e go ]; do sleep 0.1; done", more="artifacts: [first, large]"
        )
        assert cli("run", "job", "--name", "r", "--runner", "far", "-d", cwd=folder).returncode == 0
        until(lambda: run_of(cli, "r")["status"] == "running", "it runs", 60)
        way.speed = SIZE / 600
        (next(user.home.glob(".dstack-far/*/*/jobs/*/workflow")) / "go").touch()
        until(lambda: run_of(cli, "r")["status"] == "uploading", "it is stored", 60)
        until(lambda: stored(cli) > 30, "it says how far it is", 60)
        before = stored(cli)
        start = time.monotonic()

        assert cli("stop", "r").returncode == 0

        assert "stopping: " in told(cli, "r", "; to discard them: dstack stop --abort r")
        assert time.monotonic() - start < AT_ONCE
        told(cli, "r", " of 4 MB are stored; to discard them: dstack stop --abort r")
        assert stored(cli) >= before, "it goes on where it was"
        for pid in servers(dstack_home.dstack):
            os.kill(pid, signal.SIGKILL)
        way.speed = None
        assert cli("wait", "r", timeout=60).returncode == 143
        assert "stopped by dstack stop while its artifacts were being stored" in run_of(cli, "r")["reason"]
        assert cli("artifacts", "download", "r", "-o", tmp_path / "d").returncode == 0
        assert (tmp_path / "d/job/large").stat().st_size == SIZE
        until(lambda: not list(user.home.glob(".dstack-far/*/*/jobs/*")), "its folder is removed", 60)

        assert cli("run", "job", "--name", "s", "--runner", "far", "-d", cwd=folder).returncode == 0
        until(lambda: run_of(cli, "s")["status"] == "running", "it runs", 60)
        way.speed = SIZE / 20
        (next(user.home.glob(".dstack-far/*/*/jobs/*/workflow")) / "go").touch()
        contents = dstack_home.dstack / "server" / "artifacts" / ".content"
        alone = until(lambda: [path for path in contents.glob("*/*/*") if path.stat().st_nlink == 1], "one came", 60)
        assert pruned(cli) == [], "what is just being collected stays"
        assert alone[0].read_bytes() == b"s\n"
        assert cli("stop", "s", "--abort", "-y").returncode == 0
        assert cli("wait", "s", timeout=60).returncode == 143
        way.speed = None
        assert pruned(cli, "--dry-run") == pruned(cli) == [("contents", 2)]
        assert pruned(cli) == []
        assert not alone[0].exists()
        assert cli("artifacts", "download", "r", "-o", tmp_path / "e").returncode == 0
        until(lambda: not list(user.home.glob(".dstack-far/*/*/jobs/*")), "its folder is removed", 60)
        assert cli("runners", "remove", "far").returncode == 0
    finally:
        way.close()


def pruned(cli: Cli, *options: str) -> list[tuple[str, int]]:
    """What goes besides runs, and its bytes."""
    return [(each["what"], each["bytes"]) for each in json.loads(cli("prune", "--json", *options).stdout)]


def stored(cli: Cli) -> float:
    """Return how many kB of the run are stored, according to its progress."""
    found = re.search(r"([\d.]+) kB of 4 MB are stored", run_of(cli, "r")["reason"] or "")
    return float(found[1]) if found else 0


def at_work(user: Account) -> list[str]:
    """Return the processes that still run for jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.stat().st_uid == user.uid:
                found.append(path.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if "/upload/" in line or "curl" in line or "dial-stdio" in line]


def test_an_abort_ends_a_job_whose_machine_does_not_answer(
    cli: Cli, sshd: Sshd, user: Account, runner: str, docker: list[str], busybox: str, tmp_path: Path
) -> None:
    folder = single(tmp_path / "p", busybox, "echo ready; while true; do sleep 0.1; done")
    assert cli("run", "job", "--name", "r", "-d", cwd=folder).returncode == 0
    until(lambda: "ready" in cli("logs", "r").stdout, "it runs", 60)
    container = ["--filter", f"name=dstack-{run_of(cli, 'r')['jobs'][0]['id']}"]
    sshd.cut()
    sshd.close()
    try:
        assert cli("stop", "r").returncode == 0
        until(lambda: "dstack stop --abort r" in (run_of(cli, "r")["reason"] or ""), "it says what can be done", 60)
        assert cli("stop", "r", "--abort", "-y").returncode == 0
        assert cli("wait", "r", timeout=60).returncode == 143
        assert "aborted; runner 'box' is not answering" in run_of(cli, "r")["reason"]
        assert cli("runners", "check", "box").returncode == 125, "it is known as one that does not answer"
        assert subprocess.run([*docker, "ps", "-q", *container], capture_output=True, check=True).stdout
    finally:
        sshd.start()

    listed = [*docker, "ps", "-aq", *container]
    until(lambda: not subprocess.run(listed, capture_output=True, check=True).stdout, "nobody asks, yet it goes", 120)
    after = single(tmp_path / "q", busybox, "true")
    assert cli("run", "job", cwd=after).returncode == 0
