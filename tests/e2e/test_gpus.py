"""GPUs are leased by index: each container sees only its own, no two share one, and all are free at the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import images as made
from tests.e2e.project import project, single
from tests.environment.account import Account
from tests.environment.daemon import Daemon
from tests.environment.gpus import FakeGpus
from tests.environment.product import Home
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

SIZES = [1, 2, 1, 4, 1, 2, 1, 1, 2, 4] * 4
"""How many GPUs each of forty jobs asks for."""


class Box:
    """A machine with fake GPUs, and its own Docker daemon and SSH server."""

    def __init__(self, folder: Path, user: Account, count: int) -> None:
        self.gpus = FakeGpus(folder / "gpus", count)
        self.daemon = Daemon(folder / "docker", programs=self.gpus.programs)
        path = f"SetEnv PATH={self.gpus.programs}:{os.environ['PATH']}"
        self.sshd = Sshd(folder / "sshd", user.name, [path])

    def words(self, name: str, root: str) -> tuple[str, ...]:
        """The command that adds it."""
        return (
            *("runners", "add", f"{self.sshd.user}@{self.sshd.host}:{self.sshd.port}", "--name", name, "--root", root),
            *("--identity", str(self.sshd.identity), "--fingerprint", self.sshd.fingerprint),
            *("--docker", " ".join(self.daemon.command)),
        )

    def add(self, cli: Cli, name: str, root: str) -> None:
        done = cli(*self.words(name, root))
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def boxes(images: made.Images, user: Account) -> Iterator[list[Box]]:
    """Two machines with four GPUs each."""
    found = []
    try:
        for _ in range(2):
            folder = Path(tempfile.mkdtemp(prefix="dg-", dir="/tmp"))
            folder.chmod(0o755)
            found.append(Box(folder, user, 4))
            found[-1].daemon.start()
            images.beside(found[-1].daemon.command).make(made.BUSYBOX)
            found[-1].sshd.start()
        yield found
    finally:
        for box in found:
            box.sshd.close()
            box.daemon.close()
            subprocess.run(["rm", "-rf", box.gpus.folder.parent], check=True)


@pytest.fixture
def lab(dstack_home: Home, cli: Cli, boxes: list[Box], tmp_path: Path, user: Account) -> list[Box]:
    """The machines as runners of a new server."""
    dstack_home.serve()
    for number, box in enumerate(boxes, 1):
        box.add(cli, f"lab{number}", f"~/lab{number}-{os.getpid()}-{tmp_path.name}")
    return boxes


def run_of(cli: Cli, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("runs", name, "--json").stdout)
    return found


def forty(folder: Path) -> Path:
    """Make a project whose workflow depends on 39 others: one run of forty jobs."""
    names = [f"job{number}" for number in range(len(SIZES) - 1)]
    text = "workflows:\n"
    for name, size in zip([*names, "all"], SIZES, strict=True):
        needs = f"\n  depends-on: {{workflows: [{', '.join(names)}]}}" if name == "all" else ""
        text += textwrap.indent(
            f"- name: {name}\n  image: {made.BUSYBOX}\n  resources: {{gpu: {size}}}\n"
            f"  commands: ['echo $DSTACK_GPUS $NVIDIA_VISIBLE_DEVICES', nvidia-smi, sleep 0.2]{needs}\n",
            "  ",
        )
    return project(folder, text)


def check(cli: Cli, lab: list[Box], run: str) -> None:
    """Check that forty containers started, each once and with its own GPUs, and that all GPUs are free again."""
    found = run_of(cli, run)
    assert [job["status"] for job in found["jobs"]] == ["done"] * len(SIZES)
    wanted = dict(zip([*(f"job{number}" for number in range(len(SIZES) - 1)), "all"], SIZES, strict=True))
    for job in found["jobs"]:
        said = cli("logs", job["id"]).stdout.split()
        leased = ",".join(str(index) for index in job["gpus"])
        assert said == [leased, leased, leased]
        assert len(job["gpus"]) == wanted[job["workflow"]]
    begun = sorted(",".join(map(str, job["gpus"])) for job in found["jobs"])
    assert sorted(given for box in lab for given in box.gpus.given) == begun
    assert [box.gpus.overlaps for box in lab] == ["", ""]
    assert {job["runner"] for job in found["jobs"]} == {"lab1", "lab2"}
    runners = json.loads(cli("runners", "--json").stdout)
    assert [(runner["name"], runner["jobs"], runner["gpus_free"]) for runner in runners] == [
        ("lab1", [], 4),
        ("lab2", [], 4),
    ]


def forget(lab: list[Box]) -> None:
    for box in lab:
        for left in ("given", "overlaps"):
            (box.gpus.folder / left).unlink(missing_ok=True)


@pytest.mark.long
def test_forty_jobs_share_eight_gpus(cli: Cli, lab: list[Box], tmp_path: Path) -> None:
    forget(lab)

    done = cli("run", "all", "--name", "forty", cwd=forty(tmp_path / "p"), timeout=280)

    assert done.returncode == 0, done.stderr
    check(cli, lab, "forty")


@pytest.mark.long
def test_forty_jobs_while_the_server_dies_ten_times(cli: Cli, lab: list[Box], tmp_path: Path) -> None:
    forget(lab)
    assert cli("run", "all", "--name", "hardy", "-d", cwd=forty(tmp_path / "p")).returncode == 0

    for death in range(10):
        goal = death * 4
        until(
            lambda goal=goal: sum(job["status"] == "done" for job in run_of(cli, "hardy")["jobs"]) >= goal,
            f"{goal} jobs are done",
            200,
        )
        os.kill(json.loads(cli("server", "status", "--json").stdout)["pid"], signal.SIGKILL)

    assert cli("wait", "hardy", timeout=280).returncode == 0
    check(cli, lab, "hardy")


def test_a_job_without_gpus_sees_none(cli: Cli, lab: list[Box], tmp_path: Path) -> None:
    folder = single(tmp_path / "p", made.BUSYBOX, 'echo "$NVIDIA_VISIBLE_DEVICES [$DSTACK_GPUS]"')

    assert cli("run", "job", cwd=folder).stdout == "void []\n"


def test_a_gpu_is_found_by_its_name_and_memory(cli: Cli, lab: list[Box], tmp_path: Path) -> None:
    for name, gpu in {"fits": "{count: 2, name: a100, memory: 40GB}", "large": "{name: a100, memory: 80GB}"}.items():
        single(tmp_path / name, made.BUSYBOX, "nvidia-smi", more=f"resources: {{gpu: {gpu}}}")

    fits = cli("run", "job", cwd=tmp_path / "fits")
    large = cli("run", "job", cwd=tmp_path / "large")
    more = cli("run", "job", "--gpus", "5", cwd=tmp_path / "fits")

    assert (fits.returncode, fits.stdout) == (0, "0,1\n")
    assert large.returncode == more.returncode == 2
    assert "it needs 1 a100 GPU of 80 GB; the closest runner is lab1 with 4x Fake A100 of 40 GB" in large.stderr
    assert "it needs 5 a100 GPUs of 40 GB; the closest runner is lab1 with 4x Fake A100 of 40 GB" in more.stderr


def test_a_gpu_that_somebody_else_uses_is_left_alone(cli: Cli, lab: list[Box], tmp_path: Path) -> None:
    folder = single(tmp_path / "p", made.BUSYBOX, "nvidia-smi", more="resources: {gpu: 4}\nrunners: [lab1]")
    apps = lab[0].gpus.folder / "apps"
    apps.write_text(f"GPU-2, {os.getpid()}, /usr/bin/python3\n")
    try:
        checked = json.loads(cli("runners", "check", "lab1", "--json").stdout)
        assert checked["gpus_free"] == 3
        one = cli("run", "job", "--gpus", "3", cwd=folder)
        waits = cli("run", "job", "--timeout", "1s", cwd=folder)
    finally:
        apps.unlink()
    assert cli("runners", "check", "lab1").returncode == 0

    assert one.stdout == "0,1,3\n"
    assert waits.returncode == 75
    whose = f"GPU 2 is used outside dstack by root (python3, process {os.getpid()})"
    assert f"needs 4 GPUs; lab1 has 3 of 4 GPUs free, {whose}" in waits.stderr
    assert cli("run", "job", cwd=folder).stdout == "0,1,2,3\n"


def test_a_driver_that_fails_is_told_and_its_machine_gets_no_more_jobs_for_gpus(
    cli: Cli, lab: list[Box], tmp_path: Path
) -> None:
    folder = single(tmp_path / "p", made.BUSYBOX, "nvidia-smi", more="resources: {gpu: 1}")
    forget(lab)
    lab[0].gpus.fail("nvidia-container-cli: initialization error: nvml error: driver not loaded")
    try:
        failed = cli("run", "job", "--runner", "lab1", cwd=folder)
        elsewhere = cli("run", "job", "--name", "elsewhere", cwd=folder)
        assert cli("run", "job", "--name", "waits", "--runner", "lab1", "-d", cwd=folder).returncode == 0
        until(lambda: run_of(cli, "waits")["reason"], "it says why it waits", 30)
        waits = run_of(cli, "waits")
    finally:
        lab[0].gpus.fail(None)
    assert cli("runners", "check", "lab1").returncode == 0
    assert cli("wait", "waits").returncode == 0

    words = "nvidia-container-cli: initialization error: nvml error: driver not loaded"
    assert failed.returncode == 125
    assert f"containers can't use the GPUs of lab1: {words}; run nvidia-smi" in failed.stderr, failed.stderr
    assert elsewhere.returncode == 0
    assert run_of(cli, "elsewhere")["jobs"][0]["runner"] == "lab2"
    assert waits["status"] == "queued"
    assert f"lab1: containers don't get the GPUs: {words}" in waits["reason"]


def test_gpus_that_are_lost_under_a_job_are_told(cli: Cli, lab: list[Box], tmp_path: Path) -> None:
    commands = ["nvidia-smi", "while [ ! -e /workflow/go ]; do sleep 0.1; done", "exit 31"]
    folder = single(tmp_path / "p", made.BUSYBOX, *commands, more="resources: {gpu: 1}")
    assert cli("run", "job", "--runner", "lab1", "--name", "unlucky", "-d", cwd=folder).returncode == 0
    until(lambda: cli("logs", "unlucky").stdout, "it runs", 60)
    container = f"dstack-{run_of(cli, 'unlucky')['jobs'][0]['id']}"
    with lab[0].gpus.lost():
        lab[0].daemon.docker("exec", container, "/bin/sh", "-c", ": > /workflow/go")
        assert cli("wait", "unlucky").returncode == 31
        reason = run_of(cli, "unlucky")["reason"]
    assert cli("runners", "check", "lab1").returncode == 0

    assert reason.startswith(
        "job: exit code 31, and the GPU driver of lab1 is failing: nvidia-smi fails: No devices were found"
    )


def runner_named(cli: Cli, name: str) -> dict[str, Any]:
    (found,) = (each for each in json.loads(cli("runners", "--json").stdout) if each["name"] == name)
    return found


@pytest.fixture
def blind(boxes: list[Box]) -> Iterator[Box]:
    """A machine whose GPUs only Docker knows: it has no nvidia-smi."""
    box = boxes[0]
    hidden = box.gpus.programs / "nvidia-smi"
    text = hidden.read_text()
    hidden.unlink()
    yield box
    hidden.write_text(text)
    hidden.chmod(0o755)


def test_declared_gpus_are_tried(cli: Cli, dstack_home: Home, blind: Box, tmp_path: Path) -> None:
    """At `add`, `set` and `check`, with what a job's container would get."""
    dstack_home.serve()
    root = f"~/declared-{os.getpid()}-{tmp_path.name}"
    words = (*blind.words("lab", root), "--gpus")
    forget([blind])

    added = cli(*words, "2")
    more = cli("runners", "set", "lab", "--gpus", "5")
    folder = single(tmp_path / "p", made.BUSYBOX, "nvidia-smi", more="resources: {gpu: 5}")
    waits = cli("run", "job", "--timeout", "1s", cwd=folder)
    fewer = cli("runners", "set", "lab", "--gpus", "4")

    assert (added.returncode, added.stderr) == (0, "")
    assert blind.gpus.given[0] == "0,1"
    assert "lab: ready, but containers don't get the GPUs: " in more.stderr
    assert "there is no GPU '4'" in more.stderr
    assert waits.returncode == 75
    assert "lab: containers don't get the GPUs: " in waits.stderr
    assert (fewer.returncode, fewer.stderr) == (0, "")
    assert cli("run", "job", "--gpus", "4", cwd=tmp_path / "p").stdout == "0,1,2,3\n"
    assert cli("runners", "remove", "lab").returncode == 0


def test_declared_gpus_without_the_toolkit_are_told_and_stay_blocked(
    cli: Cli, dstack_home: Home, sshd: Sshd, user: Account, docker: list[str], tmp_path: Path
) -> None:
    dstack_home.serve()
    keys = ("--identity", str(sshd.identity), "--fingerprint", sshd.fingerprint)
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"

    added = cli("runners", "add", address, "--name", "bare", "--root", f"~/bare-{tmp_path.name}", "--gpus", "2", *keys)
    checked = cli("runners", "check")

    for told in (added, checked):
        assert "bare: ready, but containers don't get the GPUs: " in told.stderr
        assert 'could not select device driver "" with capabilities: [[gpu]]' in told.stderr
        assert "fix: install the NVIDIA Container Toolkit" in told.stderr
    assert runner_named(cli, "bare")["gpus_free"] == 0
    inventory = tmp_path / "hosts.ini"
    variables = f"ansible_host={sshd.host} ansible_port={sshd.port} ansible_user={sshd.user} dstack_gpus=1"
    secret = f"ansible_ssh_private_key_file={sshd.identity} dstack_fingerprint={sshd.fingerprint}"
    inventory.write_text(f"bare {variables} {secret} dstack_root=~/bare-{tmp_path.name}\n")
    imported = cli("runners", "import", str(inventory))
    assert (imported.returncode, imported.stdout.startswith("bare: changed gpus: 2 -> 1")) == (0, True)
    assert "bare: containers don't get the GPUs: " in imported.stderr
    assert runner_named(cli, "bare")["gpus_free"] == 0
    assert cli("runners", "remove", "bare").returncode == 0
