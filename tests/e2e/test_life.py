"""How long a job may run, how it is warned, and what happens after it failed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import images as made
from tests.e2e.project import single
from tests.environment.account import Account
from tests.environment.daemon import Daemon
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def job_of(cli: Cli, run: str) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)["jobs"][0]
    return job


def test_what_runs_for_too_long_is_stopped_and_keeps_what_it_saved(
    cli: Cli, runner: str, tmp_path: Path, python_image: str
) -> None:
    program = """
import signal, time
def save(*_):
    open("saved", "w").write("checkpoint")
    print("saving", flush=True)
signal.signal(signal.SIGUSR1, save)
print("training", flush=True)
while True:
    time.sleep(0.05)
"""
    more = "artifacts: [saved]\nmax-duration: 4s\nstop-grace: 1s\nsignal: {name: USR1, before: 2s}"
    folder = single(tmp_path / "p", python_image, "python3 train.py", "echo never", more=more)
    (folder / "train.py").write_text(program)

    done = cli("run", "job", "--name", "long", cwd=folder)

    assert done.returncode == 124, done.stderr
    assert done.stdout == "training\nsaving\n"
    job = job_of(cli, "long")
    assert (job["status"], job["exit_code"], job["reason"]) == ("failed", 124, "max-duration: stopped after 4s")
    assert [each["path"] for each in json.loads(cli("artifacts", "list", "long", "--json").stdout)] == ["saved"]


def test_what_does_not_end_is_killed_after_its_grace(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    deaf = ["trap '' TERM; echo deaf; while :; do sleep 0.1; done"]
    folder = single(tmp_path / "p", busybox, *deaf, more="stop-grace: 1s")
    assert cli("run", "job", "--name", "deaf", "-d", cwd=folder).returncode == 0
    until(lambda: cli("logs", "deaf").stdout == "deaf\n", "it runs", 60)

    assert cli("stop", "deaf").returncode == 0

    assert cli("wait", "deaf", timeout=30).returncode == 143
    reason = "stopped by dstack stop; it did not exit within its grace period and was killed"
    assert job_of(cli, "deaf")["reason"] == reason


def test_a_short_job_does_not_notice(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    folder = single(tmp_path / "p", busybox, "true", more="max-duration: 1h\nsignal: {before: 5m}")

    assert cli("run", "job", cwd=folder).returncode == 0


def test_an_attempt_goes_on_from_what_the_one_before_left(
    cli: Cli, runner: str, tmp_path: Path, busybox: str, docker: list[str]
) -> None:
    commands = [
        "echo attempt $DSTACK_ATTEMPT",
        "mkdir -p out && echo $DSTACK_ATTEMPT >> out/steps",
        'test "$DSTACK_ATTEMPT" = 3 || exit 42',
    ]
    more = "artifacts: [out]\nretry: {attempts: 5, on: [42]}"
    folder = single(tmp_path / "p", busybox, *commands, more=more)

    done = cli("run", "job", "--name", "again", cwd=folder)

    assert done.returncode == 0, done.stderr
    assert done.stdout == "attempt 1\nattempt 2\nattempt 3\n"
    job = job_of(cli, "again")
    assert job["attempt"] == 3
    assert [(each["number"], each["status"], each["exit_code"]) for each in job["attempts"]] == [
        (1, "failed", 42),
        (2, "failed", 42),
    ]
    assert cli("logs", "again", "--attempt", "2").stdout == "attempt 2\n"
    assert cli("logs", "again", "--attempt", "3").stdout == "attempt 3\n"
    assert cli("logs", "again", "--attempt", "4").returncode == 2
    assert "attempt 1 on box: failed: exit code 42" in cli("runs", "again").stdout
    assert cli("artifacts", "download", "again", "-o", tmp_path / "out").returncode == 0
    assert (tmp_path / "out/job/out/steps").read_text() == "1\n2\n3\n"
    listed = [*docker, "ps", "-aq", "--filter", f"name=dstack-{job['id']}"]
    until(lambda: not subprocess.run(listed, capture_output=True, check=True).stdout, "no container is left", 30)


def test_a_job_that_was_removed_with_its_folder_does_not_begin_again(
    cli: Cli, runner: str, user: Account, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    folder = single(tmp_path / "p", busybox, "echo here", "while :; do sleep 0.1; done", more="artifacts: [out]")
    assert cli("run", "job", "--name", "gone", "-d", cwd=folder).returncode == 0
    until(lambda: cli("logs", "gone").stdout == "here\n", "it runs", 60)
    job = job_of(cli, "gone")["id"]

    (there,) = user.home.glob(f".dstack-host/*/*/jobs/{job}")
    shutil.rmtree(there)
    subprocess.run([*docker, "rm", "-f", f"dstack-{job}"], check=True, capture_output=True)

    assert cli("wait", "gone", timeout=240).returncode == 125
    ended = job_of(cli, "gone")
    assert (ended["status"], ended["reason"]) == ("lost", "its folder was removed from the runner while it was running")
    assert cli("logs", "gone").stdout == "here\n"


def test_an_attempt_on_another_machine_goes_on_from_there(
    cli: Cli, runner: str, sshd: Sshd, docker: list[str], tmp_path: Path, busybox: str
) -> None:
    commands = [
        "mkdir -p out && echo $DSTACK_RUNNER >> out/where && cat out/where",
        "test $DSTACK_ATTEMPT = 2 || { while [ ! -e /workflow/go ]; do sleep 0.1; done; exit 9; }",
    ]
    folder = single(tmp_path / "p", busybox, *commands, more="artifacts: [out]\nretry: {attempts: 2, on: [9]}")
    address = [f"{sshd.user}@{sshd.host}:{sshd.port}", "--identity", str(sshd.identity)]
    other = ["--name", "crate", "--root", "~/.dstack-crate", "--fingerprint", sshd.fingerprint]
    assert cli("runners", "add", *address, *other).returncode == 0
    try:
        assert cli("run", "job", "--name", "moves", "-d", cwd=folder).returncode == 0
        first = until(lambda: cli("logs", "moves").stdout.strip(), "it runs", 60)
        assert cli("runners", "drain", first, "--reason", "to be repaired").returncode == 0
        container = f"dstack-{job_of(cli, 'moves')['id']}"
        subprocess.run([*docker, "exec", container, "/bin/sh", "-c", ": > /workflow/go"], check=True)

        assert cli("wait", "moves").returncode == 0
        second = ({"box", "crate"} - {first}).pop()
        assert cli("logs", "moves").stdout == f"{first}\n{first}\n{second}\n"
        job = job_of(cli, "moves")
        assert [(each["runner"], each["exit_code"]) for each in job["attempts"]] == [(first, 9)]
        assert (job["runner"], job["attempt"]) == (second, 2)
    finally:
        cli("runners", "remove", "crate")


@pytest.mark.parametrize(("on", "attempts"), [("[lost]", 1), ("[7]", 1), ("[error]", 2)])
def test_only_the_causes_that_are_named(
    cli: Cli, runner: str, tmp_path: Path, busybox: str, on: str, attempts: int
) -> None:
    folder = single(tmp_path / "p", busybox, "exit 3", more=f"retry: {{attempts: 2, on: {on}}}")

    done = cli("run", "job", "--name", "named", cwd=folder)

    assert done.returncode == 3
    assert job_of(cli, "named")["attempt"] == attempts


def test_a_lost_container_is_tried_again_elsewhere_or_here(
    cli: Cli, runner: str, tmp_path: Path, busybox: str, docker: list[str]
) -> None:
    wait = "test $DSTACK_ATTEMPT = 2 || while :; do sleep 0.1; done"
    folder = single(tmp_path / "p", busybox, "echo here", wait, more="retry: {attempts: 2, on: [lost]}")
    assert cli("run", "job", "--name", "gone", "-d", cwd=folder).returncode == 0
    until(lambda: cli("logs", "gone").stdout == "here\n", "it runs", 60)

    subprocess.run([*docker, "rm", "-f", f"dstack-{job_of(cli, 'gone')['id']}"], check=True, capture_output=True)

    assert cli("wait", "gone").returncode == 0
    (first,) = job_of(cli, "gone")["attempts"]
    assert first["status"] == "lost"
    assert first["reason"] == "the container was removed while it was running, but not by dstack"
    assert cli("logs", "gone").stdout == "here\nhere\n"


def test_running_out_of_memory_is_told_and_may_be_retried(
    cli: Cli, runner: str, tmp_path: Path, python_image: str
) -> None:
    more = "resources: {memory: 48MB}\nretry: {attempts: 2, on: [out-of-memory]}"
    folder = single(tmp_path / "p", python_image, "python3 -c 'x = bytearray(200_000_000)'", more=more)

    done = cli("run", "job", "--name", "big", cwd=folder)

    assert done.returncode == 137
    job = job_of(cli, "big")
    assert job["reason"] == "out of memory: the kernel killed a process of the job"
    assert job["attempt"] == 2


def test_a_full_disk_of_containers_is_told(cli: Cli, tmp_path: Path, images: made.Images) -> None:
    folder = Path(tempfile.mkdtemp(prefix="dd-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "data").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder / "data"], check=True)
    small = Daemon(folder)
    try:
        small.start()
        images.beside(small.command).make(made.BUSYBOX)
        added = cli("runners", "add", "local", "--docker", " ".join(small.command))
        assert added.returncode == 0, added.stderr
        project = single(tmp_path / "p", made.BUSYBOX, "head -c 200000000 /dev/zero > /tmp/filler")

        done = cli("run", "job", "--name", "full", cwd=project)

        assert done.returncode == 1
        assert job_of(cli, "full")["reason"].startswith("exit code 1, and the runner's disk is full: ")
    finally:
        cli("runners", "remove", "local")
        small.close()


def test_a_full_disk_is_told(cli: Cli, tmp_path: Path, busybox: str, session_folder: Path) -> None:
    small = session_folder / "small-disk"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=56m", "tmpfs", small], check=True)
    try:
        added = cli("runners", "add", "local", "--root", str(small))
        assert added.returncode == 0, added.stderr
        folder = single(tmp_path / "p", busybox, "head -c 200000000 /dev/zero > filler")

        done = cli("run", "job", "--name", "full", cwd=folder)

        assert done.returncode not in (0, 2)
        assert "disk" in job_of(cli, "full")["reason"]
    finally:
        cli("runners", "remove", "local")
        subprocess.run(["umount", "--lazy", small], check=True)
