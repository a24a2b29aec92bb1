"""What the host scripts promise, with real Docker."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from dstack.commands.command import Result
from dstack.commands.job import launch as launching
from dstack.commands.job.launch import launch
from dstack.commands.job.observe import follow, observe
from dstack.commands.job.stop import discard, stop
from dstack.commands.machine.probe import probe
from dstack.commands.machine.pull import Login, PullProgress, pull
from dstack.decide import Claim, Failed, Finished, LaunchAgain, Lost, Recorded, Running, Unknown, Wait, decide
from dstack.errors import CommandError, HostError
from dstack.model.job.execution import Launched
from dstack.model.job.job import Origin
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.paths import container
from tests.e2e.protocol import Ground, docker, docker_state, make_image, printed, tarball
from tests.environment import needs
from tests.environment.account import Account, processes
from tests.environment.daemon import Daemon
from tests.environment.waiting import until

BARE = f"dstack-test/bare:{os.getpid()}"
BASH_AS_SH = f"dstack-test/bash-as-sh:{os.getpid()}"
A, B = f"a{os.getpid()}", f"b{os.getpid()}"
"""Attempts. Each test removes its containers, and other sessions have their own."""
KILLED = Failed(137, Reason(ReasonCode.KILLED, "the container was killed by signal 9, but not by dstack"))
TOOLS = ("bash", "cat", "chown", "env", "id", "ls", "sleep", "stat", "touch", "mkdir")


@pytest.fixture(scope="module")
def bare(docker: list[str]) -> Iterator[str]:
    """An image with only sh (dash) and cat (coreutils)."""
    make_image(BARE, {"/bin/sh": "dash", "/bin/cat": "cat"})
    yield BARE
    subprocess.run([*docker, "rmi", "--force", BARE], check=True, capture_output=True)


@pytest.fixture(scope="module")
def bash_as_sh(docker: list[str]) -> Iterator[str]:
    make_image(BASH_AS_SH, {"/bin/sh": "bash", **{f"/bin/{tool}": tool for tool in TOOLS}})
    yield BASH_AS_SH
    subprocess.run([*docker, "rmi", "--force", BASH_AS_SH], check=True, capture_output=True)


@pytest.fixture
def ground(docker: list[str]) -> Iterator[Ground]:
    folder = Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp"))
    with contextlib.closing(Ground(folder)) as ground:
        yield ground
    shutil.rmtree(folder)


@pytest.fixture
def plain(user: Account) -> Iterator[Ground]:
    """A host whose user is not root."""
    folder = Path(tempfile.mkdtemp(prefix="hp-", dir="/tmp"))
    os.chown(folder, user.uid, user.uid)
    with contextlib.closing(Ground(folder, user)) as ground:
        yield ground
    shutil.rmtree(folder)


@pytest.fixture(params=["bare", "busybox", "bash_as_sh", "python_image"])
def any_image(request: pytest.FixtureRequest) -> str:
    """Images with only dash and cat; with busybox; with bash as sh; with dash and bash."""
    image: str = request.getfixturevalue(request.param)
    return image


@pytest.mark.parametrize("code", [0, 1, 17, 255])
def test_the_exit_code_is_the_containers_own(ground: Ground, any_image: str, code: int) -> None:
    launched = ground.start(A, any_image, f"echo out; echo err >&2; exit {code}")

    assert ground.ended(A) == code
    assert ground.log(A) == b"out\nerr\n"
    assert ground.decide(A, launched) == Finished(code)
    assert docker("inspect", "--format", "{{.State.ExitCode}}", container(A)).strip() == str(code)
    now = ground.observe(A).origin
    assert launched.origin is not None
    assert launched.origin.boot == now.boot
    assert set(launched.origin.engine.split()) & set(now.engine.split())
    assert launched.digest
    assert launched.digest.startswith("sha256:")


def test_commands_run_in_one_shell_that_ends_at_the_first_failure(ground: Ground, any_image: str) -> None:
    code, log = ground.run(A, any_image, "cd sub\nX=1\necho $X $PWD\n(exit 3)\necho never\n", environment={"A": "b"})

    assert (code, log) == (3, b"1 /workflow/sub\n")


def test_commands_start_in_the_projects_folder(ground: Ground, any_image: str) -> None:
    assert ground.run(A, any_image, "pwd", project="sub") == (0, b"/workflow/sub\n")
    code, log = ground.run(B, any_image, "echo never", project="no such")
    assert code == 125
    assert b"the tree has no folder no such" in log
    assert b"never" not in log


def test_twenty_launches_at_once_run_the_commands_once(ground: Ground, busybox: str) -> None:
    command = launch(ground.context, ground.order(A, busybox, "echo ran; sleep 1"))
    racers = [ground.process(command.script) for _ in range(20)]

    answers = [racer.communicate(timeout=120) for racer in racers]

    assert [racer.returncode for racer in racers] == [0] * 20, answers
    assert sum(b"outcome=started" in out for out, _ in answers) == 1
    assert ground.ended(A) == 0
    assert ground.log(A) == b"ran\n"


def test_a_launch_whose_connection_was_lost_does_not_hold_up_the_next(
    ground: Ground, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "PATIENCE", 1)
    order = ground.order(A, busybox, "echo ran")
    stuck = ground.process(launch(ground.context, order, b"", b"a pack that never arrives").script)
    try:
        until(lambda: (ground.home / "jobs" / A / "pack").exists(), "it waits for the pack")

        assert ground.launch(A, busybox, "echo ran").outcome == "started"

        assert ground.ended(A) == 0
        assert ground.log(A) == b"ran\n"
    finally:
        stuck.communicate(timeout=30)


def test_containers_behind_the_locks_back_run_the_commands_once(ground: Ground, busybox: str) -> None:
    ground.start(A, busybox, "echo ran; sleep 1")
    mounts = [f"--volume={ground.io(A)}:/.dstack", f"--volume={ground.tree(A)}:/workflow"]
    named = ["--label", f"dstack.server={ground.server}", "--entrypoint", "/bin/sh", busybox, "/.dstack/entry.sh"]

    codes = [subprocess.run(["docker", "run", *mounts, *named], capture_output=True).returncode for _ in range(3)]

    assert codes == [0, 0, 0]
    assert ground.ended(A) == 0
    assert ground.log(A) == b"ran\n"


def test_starting_the_container_again_changes_nothing(ground: Ground, any_image: str) -> None:
    launched = ground.start(A, any_image, "echo ran; exit 4")
    assert ground.ended(A) == 4

    docker("start", container(A))
    docker("wait", container(A))

    assert ground.decide(A, launched) == Finished(4)
    assert ground.log(A) == b"ran\n"
    assert ground.launch(A, any_image, "echo ran; exit 4").outcome == "exists"


def test_a_launch_that_was_cut_off_after_create_is_finished_by_the_next(ground: Ground, busybox: str) -> None:
    ground.start(A, busybox, "echo ran")
    ground.ended(A)
    (ground.io(A) / "started").unlink()
    (ground.io(A).parent / "exit").unlink()
    docker("rm", container(A))
    mounts = [f"--volume={ground.io(A)}:/.dstack", f"--volume={ground.tree(A)}:/workflow"]
    label = ["--label", f"dstack.server={ground.server}", "--name", container(A)]
    docker("create", *mounts, *label, "--entrypoint", "/bin/sh", busybox, "/.dstack/entry.sh")
    assert ground.decide(A) == Wait()

    launched = ground.start(A, busybox, "echo ran")

    assert ground.ended(A) == 0
    assert ground.decide(A, launched) == Finished(0)


def test_a_container_that_can_not_be_started_is_replaced(ground: Ground, busybox: str) -> None:
    ground.start(A, busybox, "echo ran")
    ground.ended(A)
    for name in ("started", "exit", "log"):
        for folder in (ground.io(A), ground.io(A).parent):
            (folder / name).unlink(missing_ok=True)
    docker("rm", container(A))
    docker("create", "--name", container(A), "--entrypoint", "/no/such/program", busybox)

    launched = ground.start(A, busybox, "echo ran")

    assert ground.ended(A) == 0
    assert ground.decide(A, launched) == Finished(0)
    assert ground.log(A) == b"ran\n"


@pytest.mark.parametrize("commands", ["echo ran", "sleep 60"])
def test_a_job_whose_folder_was_removed_is_not_launched_again(ground: Ground, busybox: str, commands: str) -> None:
    ground.start(A, busybox, commands)
    if commands == "echo ran":
        docker("wait", container(A))
    else:
        until(lambda: (ground.io(A) / "started").exists(), "the commands have begun")
    shutil.rmtree(ground.io(A).parent)
    first = docker("inspect", "--format", "{{.Id}}", container(A))

    again = ground.launch(A, busybox, commands)

    assert again.outcome == "exists"
    assert docker("inspect", "--format", "{{.Id}}", container(A)) == first
    docker("stop", "--time", "0", container(A))
    assert isinstance(ground.decide(A, again), Lost)


def test_what_is_missing_is_told_before_stdin_is_read(ground: Ground, busybox: str) -> None:
    absent = ground.launch(A, "dstack-test/absent:1", "true", artifacts=True)
    uncoded = ground.launch(B, busybox, "true", artifacts=True, tree="0" * 40)

    assert absent.outcome == "need-image"
    assert uncoded.outcome == "need-code"
    assert uncoded.trees == (ground.snapshot.tree,)
    assert uncoded.commits == (ground.snapshot.commit,)
    assert ground.decide(A) == ground.decide(B) == LaunchAgain()
    heard = PullProgress()
    with ground.process(pull(ground.context, "127.0.0.1:1/dstack-test/absent:1").script) as fetching:
        heard.feed(printed(fetching, lambda got: False))
        assert fetching.wait(60) == 1
    assert "127.0.0.1:1" in heard.trouble
    assert "connection refused" in heard.trouble


def test_a_pull_that_is_killed_leaves_nothing_for_long(ground: Ground, busybox: str) -> None:
    """During the pull, podman's login is in a file. The stand-in for podman prints it and never ends."""
    podman = ground.folder / "podman"
    podman.write_text('#!/bin/sh\ncase $1 in pull) cat "$3"; exec sleep 600 ;; esac\nexec docker "$@"\n')
    podman.chmod(0o755)
    context = replace(ground.context, docker=str(podman))
    scripts = [pull(context, f"lab/box:{number}", Login("ann", "hunter2")).script for number in (1, 2)]
    with ground.process(scripts[0]) as killed, ground.process(scripts[1]) as ended:
        for fetching in (killed, ended):
            assert b'"auth"' in printed(fetching, lambda got: got.endswith(b"\n"))
        works = {int(path.name): path for path in (ground.home / "pulls").glob("[0-9]*")}
        assert set(works) == {killed.pid, ended.pid}
        for work in works.values():
            assert [path.stat().st_mode & 0o777 for path in (work, work / "login.json")] == [0o700, 0o600]

        os.kill(killed.pid, signal.SIGKILL)
        ground.ask(discard(ground.context, A, busybox))

        assert not works[killed.pid].exists()
        assert works[ended.pid].exists(), "one that is under way is left alone"
        assert ended.stdin is not None
        ended.stdin.close()
        assert ended.wait(60) != 0
        assert not works[ended.pid].exists()
        os.killpg(killed.pid, signal.SIGKILL)


def test_dockers_own_words_when_it_refuses_and_a_clean_start_after(ground: Ground, busybox: str) -> None:
    with pytest.raises(CommandError) as refused:
        ground.launch(A, busybox, "echo ran", user="nobody-of-that-name")
    assert "nobody-of-that-name" in refused.value.stderr
    assert docker_state(A) is None

    with pytest.raises(CommandError, match="could not select device driver") as no_gpu:
        ground.launch(B, busybox, "echo ran", gpus=(0, 1))
    assert no_gpu.value.exit_status == 125
    assert docker_state(B) is None
    assert ground.decide(B) == LaunchAgain()

    assert ground.run(A, busybox, "echo ran") == (0, b"ran\n")
    assert ground.run(B, busybox, "echo ran") == (0, b"ran\n")


def test_an_image_whose_sh_does_not_exist(ground: Ground, bare: str) -> None:
    name = f"dstack-test/no-sh:{os.getpid()}"
    make_image(name, {"/bin/cat": "cat"})
    try:
        with pytest.raises(CommandError, match="/bin/sh") as refused:
            ground.launch(A, name, "true")
    finally:
        docker("rmi", "--force", name)
    assert refused.value.exit_status == 127
    assert docker_state(A) is None


def test_another_machine_does_nothing(ground: Ground, busybox: str) -> None:
    elsewhere = replace(ground.context, layout=replace(ground.context.layout, machine="0" * 32))

    for command in (launch(elsewhere, ground.order(A, busybox, "true")), stop(elsewhere, A, 0)):
        with pytest.raises(HostError, match="a different machine answers"):
            ground.ask(command)
    assert not (ground.folder / "root" / ("0" * 32)).exists()


def test_a_root_with_odd_characters(docker: list[str], busybox: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="h: p'$x!-", dir="/tmp"))
    with contextlib.closing(Ground(folder)) as ground:
        assert ground.run(A, busybox, "cat train.py") == (0, b"print('hello')\n")
    shutil.rmtree(folder)


def test_a_root_that_dockers_mounts_can_not_name(docker: list[str], busybox: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="h,p-", dir="/tmp"))
    with contextlib.closing(Ground(folder)) as ground, pytest.raises(CommandError, match="choose another --root"):
        ground.launch(A, busybox, "true")
    shutil.rmtree(folder)


# The log


BINARY = """
import os, sys
block = bytes(range(256)) * 4096 + b"\\r\\x00\\xff\\xfe no newline"
left = 100 * 2**20
while left:
    piece = block[:left]
    os.write(1 if left % 2 else 2, piece) == len(piece) or sys.exit(9)
    left -= len(piece)
"""


def test_a_hundred_megabytes_of_anything_are_kept_byte_for_byte(ground: Ground, python_image: str) -> None:
    block = bytes(range(256)) * 4096 + b"\r\x00\xff\xfe no newline"
    size = 100 * 2**20
    expected = (block * (size // len(block) + 1))[:size]
    ground.start(A, python_image, f"python3 -c '{BINARY}'")
    process = ground.process(follow(ground.context, A, 0).script)

    live = printed(process, lambda got: False)
    process.communicate(timeout=30)

    assert ground.ended(A) == 0
    assert process.returncode == 0
    assert expected.startswith(live)
    whole = live + ground.log(A, len(live))
    assert sha256(whole).digest() == sha256(expected).digest()
    assert ground.observe(A).log_size == size


def test_a_last_line_without_newline(ground: Ground, any_image: str) -> None:
    assert ground.run(A, any_image, "printf 'no end'") == (0, b"no end")


def test_the_log_from_an_offset(ground: Ground, busybox: str) -> None:
    ground.run(A, busybox, "printf 0123456789")

    assert ground.log(A, 0) == b"0123456789"
    assert ground.log(A, 7) == b"789"
    assert ground.log(A, 10) == b""
    assert ground.log(f"{A}-never-launched") == b""


def test_following_shows_bytes_as_they_come_and_ends_with_the_job(ground: Ground, busybox: str) -> None:
    ground.start(A, busybox, "printf first; while ! [ -e go ]; do sleep 0.1; done; printf second")
    until(lambda: ground.log(A, 0) == b"first", "so much is in the log")
    process = ground.process(follow(ground.context, A, 2).script)

    assert printed(process, lambda got: len(got) >= 3) == b"rst"
    (ground.tree(A) / "go").touch()
    rest = printed(process, lambda got: False)
    assert process.wait(timeout=30) == 0

    assert b"rst" + rest + ground.log(A, 5 + len(rest)) == b"rstsecond"
    process.communicate()


def test_following_ends_when_its_reader_leaves_and_leaves_no_process(plain: Ground, busybox: str) -> None:
    plain.start(A, busybox, "echo here; sleep 600")
    assert plain.user is not None
    process = plain.process(follow(plain.context, A, 0).script)
    assert printed(process, lambda got: b"here\n" in got) == b"here\n"

    assert process.stdin is not None
    process.stdin.close()

    assert process.wait(timeout=30) == 0
    uid = plain.user.uid
    until(lambda: not processes(uid), "no process of the user's is left")
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_following_ends_when_the_container_is_removed(ground: Ground, busybox: str) -> None:
    launched = ground.start(A, busybox, "echo here; sleep 600")
    process = ground.process(follow(ground.context, A, 0).script)
    assert printed(process, lambda got: b"here\n" in got) == b"here\n"

    docker("rm", "--force", container(A))

    assert process.wait(timeout=30) == 0
    process.communicate()
    assert ground.decide(A, launched) == Lost(
        125, Reason(ReasonCode.LOST_REMOVED, "the container was removed while it was running, but not by dstack")
    )


def test_a_child_that_holds_the_log_open_is_waited_for_only_so_long(ground: Ground, python_image: str) -> None:
    code, log = ground.run(A, python_image, "echo begun; (trap '' TERM; sleep 300; echo late) & exit 6")

    assert (code, log) == (6, b"begun\n")


def test_what_a_child_says_right_after_the_script_is_kept(ground: Ground, python_image: str) -> None:
    assert ground.run(A, python_image, "(sleep 1; echo late) & echo begun") == (0, b"begun\nlate\n")


# The end


TRAINER = """
import signal, sys, time
def last_words(*_):
    time.sleep(1)
    print("checkpoint saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, last_words)
print("training", flush=True)
while True:
    time.sleep(0.05)
"""


def heard(ground: Ground, attempt: str, words: bytes) -> None:
    until(lambda: words in ground.log(attempt), f"{words!r} is in the log")


def test_sigterm_reaches_python_and_no_further_command_begins(ground: Ground, python_image: str) -> None:
    launched = ground.start(A, python_image, f"python3 -c '{TRAINER}'\necho next command >&2\n")
    heard(ground, A, b"training")

    assert ground.ask(stop(ground.context, A, 60)).outcome == "stopping"
    assert ground.ask(stop(ground.context, A, 60)).outcome in ("stopping", "ended")

    assert ground.ended(A) == 143
    assert ground.log(A) == b"training\ncheckpoint saved\n"
    assert ground.decide(A, launched, stop=True) == Finished(143, asked=True)
    assert ground.ask(stop(ground.context, A, 60)).outcome == "ended"


def test_sigterm_ends_any_shell(ground: Ground, any_image: str) -> None:
    ground.start(A, any_image, "echo begun\nwhile :; do :; done\necho never")
    heard(ground, A, b"begun")

    ground.ask(stop(ground.context, A, 60))

    assert ground.ended(A, seconds=30) == 143
    assert ground.log(A) == b"begun\n"


def test_stopping_does_not_hold_its_caller_for_the_grace(ground: Ground, python_image: str) -> None:
    launched = ground.start(A, python_image, "trap '' TERM; echo begun; sleep 600 & wait; sleep 600")
    heard(ground, A, b"begun")

    process = ground.process(stop(ground.context, A, 3).script)
    out, _ = process.communicate(timeout=3)

    assert out == b"outcome=stopping\n"
    assert ground.ended(A) is None
    assert ground.decide(A, launched, stop=True).exit_code == 143
    assert ground.decide(A, launched).exit_code == 137


def test_aborting_is_at_once(ground: Ground, busybox: str) -> None:
    ground.start(A, busybox, "trap '' TERM; echo begun; sleep 600; sleep 600")
    heard(ground, A, b"begun")

    assert ground.ask(stop(ground.context, A, 600)).outcome == "stopping"
    ground.ask(stop(ground.context, A, 0))

    assert ground.ended(A, seconds=20) is None


def test_a_job_that_was_stopped_before_it_began_never_begins(ground: Ground, busybox: str) -> None:
    assert ground.ask(stop(ground.context, A, 30)).outcome == "fenced"

    assert ground.launch(A, busybox, "echo ran").outcome == "fenced"
    assert ground.ask(stop(ground.context, A, 30)).outcome == "fenced"

    assert docker_state(A) is None
    assert ground.observe(A).claim is Claim.FENCED
    assert ground.decide(A, stop=True).exit_code == 143


def test_stop_and_launch_at_once_agree(ground: Ground, busybox: str) -> None:
    for number in range(6):
        attempt = f"{A}-{number}"
        starting = ground.process(launch(ground.context, ground.order(attempt, busybox, "echo ran; sleep 600")).script)
        threading.Event().wait(number * 0.08)
        stopped = ground.ask(stop(ground.context, attempt, 0)).outcome
        launched, _ = starting.communicate(timeout=60)

        if stopped == "fenced":
            assert ground.log(attempt) == b""
            assert ground.observe(attempt).claim is Claim.FENCED
        else:
            assert b"outcome=started" in launched
            assert ground.observe(attempt).claim is Claim.CLAIMED


def test_a_killed_container_has_failed(ground: Ground, busybox: str) -> None:
    launched = ground.start(A, busybox, "echo begun; sleep 600")
    heard(ground, A, b"begun")
    assert ground.decide(A, launched) == Running()

    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", container(A))), signal.SIGKILL)

    assert ground.ended(A) is None
    assert ground.decide(A, launched) == KILLED
    elsewhen = Launched("started", Origin("another boot", launched.origin.engine if launched.origin else ""))
    assert ground.decide(A, elsewhen) == Lost(
        125, Reason(ReasonCode.LOST_HOST_RESTARTED, "the runner restarted while the job was running")
    )
    docker("start", container(A))
    docker("wait", container(A))
    assert isinstance(ground.decide(A, launched), Failed)
    assert ground.log(A) == b"begun\n"


STOPPED_BY_OTHERS = Lost(
    125,
    Reason(ReasonCode.LOST_STOPPED, "the container was told to end, but not by dstack: by a docker stop, for example"),
)


def test_a_job_that_somebody_stops_is_lost(ground: Ground, any_image: str) -> None:
    launched = ground.start(A, any_image, "echo begun; while :; do :; done")
    heard(ground, A, b"begun")

    docker("stop", "--time", "30", container(A))

    assert ground.decide(A, launched) == STOPPED_BY_OTHERS


@pytest.mark.parametrize("handler", ["exit 0", ""])
def test_it_is_lost_whatever_it_did_with_the_signal(ground: Ground, busybox: str, handler: str) -> None:
    launched = ground.start(A, busybox, f"trap '{handler}' TERM; echo begun; while :; do :; done")
    heard(ground, A, b"begun")

    docker("stop", "--time", "2", container(A))

    assert ground.decide(A, launched) == STOPPED_BY_OTHERS


def test_a_job_that_ended_before_it_was_stopped_keeps_its_end(ground: Ground, any_image: str) -> None:
    launched = ground.start(A, any_image, "exit 3")
    assert ground.ended(A) == 3

    assert ground.ask(stop(ground.context, A, 60)).outcome == "ended"

    assert ground.decide(A, launched, stop=True) == Finished(3)


def test_a_sigterm_after_the_commands_is_not_their_end(ground: Ground, python_image: str) -> None:
    launched = ground.start(A, python_image, "echo begun; (trap '' TERM; sleep 4) & exit 3")
    heard(ground, A, b"begun")
    until(lambda: b"script.sh" not in subprocess.run(["docker", "top", container(A)], capture_output=True).stdout, "")

    docker("stop", "--time", "30", container(A))

    assert ground.decide(A, launched) == Finished(3)


def test_a_fence_leaves_alone_what_runs(ground: Ground, busybox: str) -> None:
    assert ground.ask(stop(ground.context, B, None)).outcome == "fenced"
    launched = ground.start(A, busybox, "echo begun; sleep 600")
    heard(ground, A, b"begun")

    assert ground.ask(stop(ground.context, A, None)).outcome == "running"

    assert ground.decide(A, launched) == Running()


def test_a_daemon_that_holds_other_containers_may_end(ground: Ground, own_dockerd: Daemon, busybox: str) -> None:
    launched = ground.start(A, busybox, "echo begun; sleep 600")
    heard(ground, A, b"begun")
    assert launched.origin is not None
    assert len(launched.origin.engine.split()) == 1
    context = replace(ground.context, docker=" ".join(own_dockerd.command))
    other = ground.ask(launch(context, ground.order(B, busybox, "echo begun; sleep 600")))
    assert other.origin is not None
    assert other.origin.engine.split(":")[0] == str(own_dockerd.pid)
    heard(ground, B, b"begun")

    own_dockerd.kill()
    docker("kill", container(A))

    assert ground.ended(A) is None
    assert ground.decide(A, launched) == KILLED
    own_dockerd.start("--live-restore=false")
    decision = decide(Recorded(other.origin), ground.ask(observe(context, B)))
    assert isinstance(decision, Lost)
    assert decision.reason == Reason(
        ReasonCode.LOST_DOCKER_RESTARTED, "Docker restarted on the runner, which ended the container"
    )


def test_a_job_that_kills_all_its_processes_has_a_result(ground: Ground, any_image: str) -> None:
    code, _ = ground.run(A, any_image, "kill -9 -1; while :; do :; done")

    assert code == 137


def test_out_of_memory_is_said(ground: Ground, python_image: str) -> None:
    eater = "echo begun; while ! [ -e go ]; do sleep 0.1; done; python3 -c 'x = bytearray(2**30); print(len(x))'"
    launched = ground.start(A, python_image, eater)
    heard(ground, A, b"begun")
    docker("update", "--memory", "64m", "--memory-swap", "64m", container(A))
    (ground.tree(A) / "go").touch()

    # The kernel kills the process, not the container: the script goes on, and ends with the process's code.
    assert ground.ended(A) == 137
    decision = ground.decide(A, launched)
    assert isinstance(decision, Finished)
    assert (decision.exit_code, decision.cause) == (137, "out-of-memory")


def test_docker_that_does_not_answer_is_unknown(ground: Ground, busybox: str) -> None:
    launched = ground.start(A, busybox, "echo begun; sleep 600")
    ground.context = replace(ground.context, docker="docker -H unix:///nonexistent/docker.sock")

    decision = ground.decide(A, launched)

    assert isinstance(decision, Unknown)
    assert "/nonexistent/docker.sock" in (decision.reason.text if decision.reason else "")


@pytest.mark.parametrize(
    "damage", ["rm -rf /.dstack/* 2>&-", "for f in entry.sh script.sh env; do : > /.dstack/$f; done"]
)
def test_a_job_that_spoils_its_folder_still_ends(ground: Ground, python_image: str, damage: str) -> None:
    launched = ground.start(A, python_image, f"{damage} || :\necho on\nexit 5\n")

    assert ground.ended(A) == 5
    assert ground.decide(A, launched) == Finished(5)


@pytest.mark.parametrize("made", [": > /.dstack/exit", "echo soon > /.dstack/exit", "mkdir /.dstack/exit"])
def test_a_job_that_makes_its_exit_file_can_be_stopped(ground: Ground, busybox: str, made: str) -> None:
    launched = ground.start(A, busybox, f"{made}; echo begun; while :; do :; done")
    heard(ground, A, b"begun")
    assert ground.decide(A, launched) == Running()

    assert ground.ask(stop(ground.context, A, 60)).outcome == "stopping"

    ground.ended(A)
    decision = ground.decide(A, launched, stop=True)
    assert decision.ended
    assert decision.exit_code == 143


def test_the_host_opens_no_link_that_a_job_left(ground: Ground, python_image: str) -> None:
    links = "for f in log exit; do ln -sf /etc/hostname /.dstack/$f; done; mkfifo /.dstack/fifo"
    launched = ground.start(A, python_image, f"echo on; sleep 1; {links}\n")
    until(lambda: docker_state(A) == "exited", "the job has ended")

    assert ground.log(A) == b"on\n"
    assert ground.observe(A).exit_code is None
    assert isinstance(ground.decide(A, launched), Failed)


SWAPPING = """
import os, shutil, sys, time
secret, end = "SECRET", time.monotonic() + 4
def link(path): os.symlink(secret, path)
def other(path): open(path, "w").write("mine too")
while time.monotonic() < end:
    for make in (link, os.mkfifo, link, os.mkdir, other):
        shutil.rmtree("/.dstack/aside", ignore_errors=True)
        if os.path.lexists("/.dstack/aside"): os.unlink("/.dstack/aside")
        if os.path.isdir("/.dstack/log") and not os.path.islink("/.dstack/log"): os.rmdir("/.dstack/log")
        make("/.dstack/aside")
        try: os.rename("/.dstack/aside", "/.dstack/log")
        except OSError: pass
    print("swapped", flush=True)
"""


def test_a_job_that_swaps_its_log_shows_only_what_it_said(plain: Ground, python_image: str) -> None:
    secret = plain.folder / "secret"
    secret.write_text("the machine's own\n")
    swap = SWAPPING.replace("SECRET", str(secret))
    plain.start(A, python_image, f"sleep 0.5; python3 - << 'END'\n{swap}\nEND\n")

    following = plain.process(follow(plain.context, A, 0).script)
    seen = set()
    while docker_state(A) == "running":
        seen.add(plain.log(A)[:8])
        plain.observe(A)
    said, _ = following.communicate(timeout=60)

    assert plain.ended(A) == 0
    assert seen <= {b"", b"swapped\n"}
    assert set(plain.log(A).splitlines()) == {b"swapped"}
    assert plain.log(A).startswith(said)


def test_a_full_disk_ends_with_the_containers_code(ground: Ground, python_image: str) -> None:
    ground.start(A, python_image, "exit 0")
    ground.ended(A)
    small = [f"--mount=type=bind,source={ground.tree(A)},target=/workflow", "--tmpfs", "/.dstack:size=64k"]
    fill = "echo ran; dd if=/dev/zero of=/.dstack/full bs=1k count=100 2>&- || :; exit 9"
    (ground.tree(A) / "entry.sh").write_bytes((ground.io(A) / "entry.sh").read_bytes())
    (ground.tree(A) / "script.sh").write_text(fill)
    begin = "cp /workflow/*.sh /.dstack; : > /.dstack/env; exec sh /.dstack/entry.sh"
    label = ["--label", f"dstack.server={ground.server}"]

    done = subprocess.run(["docker", "run", *small, *label, python_image, "sh", "-c", begin], capture_output=True)

    assert done.returncode == 9, done.stderr


# Users and files


def test_files_are_handed_back_to_the_hosts_user(plain: Ground, python_image: str) -> None:
    made = "mkdir -p out/deep; echo x > out/deep/file; ln -s /etc/passwd out/link; chmod 600 out/deep/file; id -u"
    code, log = plain.run(A, python_image, made)

    assert (code, log) == (0, b"0\n")
    assert plain.user is not None
    tree = plain.tree(A)
    owners = {path.lstat().st_uid for path in [tree, *tree.rglob("*"), plain.io(A) / "log"]}
    assert owners == {plain.user.uid}
    assert Path("/etc/passwd").stat().st_uid == 0
    assert (plain.home / "jobs" / A).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("image", ["busybox", "python_image", "bare"])
@pytest.mark.parametrize("who", ["12345", "nobody"])
def test_a_job_of_another_user_can_write(plain: Ground, image: str, who: str, request: pytest.FixtureRequest) -> None:
    name = request.getfixturevalue(image)
    if image == "bare" and who == "nobody":
        with pytest.raises(CommandError, match="nobody"):
            plain.launch(A, name, "true", user=who)
        return
    code, log = plain.run(A, name, "echo $A > out; cat out; echo >> train.py", user=who, environment={"A": "b c"})

    assert (code, log) == (0, b"b c\n")
    uid = 65534 if who == "nobody" else 12345
    assert (plain.tree(A) / "out").stat().st_uid == uid
    assert (plain.io(A) / "env").read_bytes() == b""


def test_the_images_own_user(plain: Ground, busybox: str) -> None:
    name = f"dstack-test/own-user:{os.getpid()}"
    made = docker("create", "--label", f"dstack.server={plain.server}", busybox).strip()
    docker("commit", "--change", "USER 777:888", made, name)
    try:
        assert plain.run(A, name, "id -u; id -g; echo > new", user="image") == (0, b"777\n888\n")
        assert plain.run(B, name, "id -u") == (0, b"0\n")
    finally:
        docker("rm", "--force", made, container(A), container(B))
        docker("rmi", "--force", name)


def test_git_in_the_container_tells_what_it_tells_the_user(plain: Ground, python_image: str) -> None:
    trusting = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    asked = "git rev-parse HEAD; git status --porcelain; git symbolic-ref --short HEAD; git log -1 --format=%s"
    for attempt, who in ((A, "root"), (B, "12345")):
        code, log = plain.run(attempt, python_image, asked, user=who, environment=dict(trusting))
        assert (code, log.decode().split()) == (0, [plain.snapshot.commit, "main", "first"])


# Environment


AWKWARD = {
    "PRINTABLE": "".join(chr(code) for code in range(32, 127)),
    "LINES": "one\ntwo\n\n'three' \\\n$HOME `id` \"$(id)\"\n",
    "EMPTY": "",
    "UNICODE": "grüße 🦦",
    "TABS": "\t a \r b \x07",
    "bang": "!!",
}


def test_values_arrive_as_they_are(ground: Ground, any_image: str) -> None:
    show = "".join(f'printf "%s\\0" "${name}"; ' for name in AWKWARD)
    code, log = ground.run(
        A, any_image, show + 'echo "${PATH:+path}${GONE-unset}"', environment={**AWKWARD, "GONE": None}
    )

    assert code == 0
    *shown, last = log.split(b"\0")
    assert dict(zip(AWKWARD, [value.decode() for value in shown], strict=True)) == AWKWARD
    assert last == b"pathunset\n"
    assert (ground.io(A) / "env").read_bytes() == b""


def test_the_environment_is_not_in_dockers_inspect(ground: Ground, busybox: str) -> None:
    ground.run(A, busybox, "true", environment={"TOKEN": "hunter2"})

    assert "hunter2" not in docker("inspect", container(A))


def test_programs_get_the_signals_as_under_docker_run(ground: Ground, python_image: str) -> None:
    ask = "import signal; print([signal.getsignal(s) == signal.SIG_IGN for s in (1, 2, 3, 10, 12, 15)])"
    assert ground.run(A, python_image, f"python3 -c '{ask}'") == (0, b"[False, False, False, False, False, False]\n")


def test_dev_shm_may_grow_to_half_of_the_memory(ground: Ground, python_image: str) -> None:
    code, log = ground.run(A, python_image, "df -k /dev/shm | tail -n 1")
    memory = int(Path("/proc/meminfo").read_text().split()[1])

    assert code == 0
    assert int(log.split()[1]) == pytest.approx(memory / 2, rel=0.01)


# Artifacts of dependencies


def test_artifacts_are_unpacked_into_the_project(plain: Ground, busybox: str) -> None:
    files = [("models/x", b"weights"), ("run.sh", b"replaced"), (".hidden/..odd", b"h"), ("models/sub/y", b"y")]
    code, log = plain.run(
        A,
        busybox,
        "cat models/x run.sh .hidden/..odd models/sub/y",
        project="sub",
        artifacts=True,
        stdin=tarball(files),
    )

    assert (code, log) == (0, b"weightsreplacedhy")
    model = plain.tree(A) / "sub" / "models" / "x"
    assert plain.user is not None
    assert (model.stat().st_uid, model.stat().st_mode & 0o777) == (plain.user.uid, 0o644)


def test_artifacts_follow_no_link_out_of_the_tree(ground: Ground, busybox: str) -> None:
    outside = ground.folder / "outside"
    outside.mkdir()
    with pytest.raises(CommandError):
        ground.launch(A, busybox, "true", artifacts=True, stdin=b"this is no tar" * 100)
    (ground.tree(A) / "models").symlink_to(outside)
    (ground.tree(A) / "train.py").unlink()
    (ground.tree(A) / "train.py").mkdir()

    files = [("models/x", b"weights"), ("train.py", b"file")]
    code, log = ground.run(A, busybox, "cat models/x train.py", artifacts=True, stdin=tarball(files))

    assert (code, log) == (0, b"weightsfile")
    assert list(outside.iterdir()) == []


def test_artifacts_that_did_not_arrive_whole_are_not_used(ground: Ground, busybox: str) -> None:
    cut = tarball([("a", b"1")], whole=False)[:1024]

    with pytest.raises(CommandError):
        ground.launch(A, busybox, "true", artifacts=True, stdin=cut)

    assert not (ground.tree(A) / "a").exists()


def test_a_launch_of_another_user_can_be_repeated_with_artifacts(plain: Ground, busybox: str) -> None:
    files = tarball([("models/x", b"weights")])
    with pytest.raises(CommandError):
        plain.launch(A, busybox, "true", user="12345", gpus=(0,), artifacts=True, stdin=files)
    assert (plain.tree(A) / "models" / "x").stat().st_uid == 12345

    code, log = plain.run(A, busybox, "cat models/x; rm models/x", user="12345", artifacts=True, stdin=files)

    assert (code, log) == (0, b"weights")


# The machine


def test_a_probe_finds_the_machine_and_leaves_it_as_it_was(plain: Ground) -> None:
    facts = plain.ask(probe(f"{plain.folder}/new/root", "docker"))

    assert facts.problem is None
    assert facts.fix is None
    assert facts.machine == plain.context.layout.machine
    assert plain.user is not None
    assert facts.user == plain.user.name
    assert facts.cpus == os.cpu_count()
    assert facts.memory == int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert facts.disk_free > 2**20
    assert facts.docker == docker("version", "--format", "{{.Server.Version}}").strip()
    assert facts.git
    assert facts.kernel == os.uname().release
    assert not (plain.folder / "new").exists()


def test_a_probe_names_what_is_in_the_way(plain: Ground) -> None:
    found = {
        words: plain.ask(probe(root, words))
        for root, words in (
            ("~/.dstack-host", "dockerr"),
            ("~/.dstack-host", "docker -H unix:///nonexistent/x.sock"),
            ("/root/x", "docker"),
        )
    }

    assert found["dockerr"].problem == "'dockerr' is not installed"
    silent = found["docker -H unix:///nonexistent/x.sock"]
    assert "does not answer" in (silent.problem or "")
    assert silent.fix == "sudo systemctl start docker"
    assert "can't write to /root" in (found["docker"].problem or "")
    assert "--root" in (found["docker"].fix or "")


def test_a_probe_of_a_user_who_may_not_use_docker(plain: Ground) -> None:
    assert plain.user is not None
    command = probe("~/.dstack-host", "docker")
    outsider = plain.process(command.script, extra_groups=[])
    out, err = outsider.communicate(timeout=60)

    facts = command.parse(Result(outsider.returncode, out, err))

    assert "is not allowed to use Docker" in (facts.problem or "")
    assert facts.fix == f"sudo usermod -aG docker {plain.user.name}"


@pytest.mark.parametrize("owner", ["ground", "plain"])
def test_a_container_gets_the_devices_of_its_amd_gpus_and_no_others(
    request: pytest.FixtureRequest, owner: str, busybox: str
) -> None:
    ground: Ground = request.getfixturevalue(owner)
    needs.root("making devices")
    devices = ground.folder / "dev"
    (devices / "dri").mkdir(parents=True)
    for name in ("kfd", "dri/renderD128", "dri/renderD129", "dri/renderD130"):
        os.mknod(devices / name, 0o660 | stat.S_IFCHR, os.makedev(1, 3))
        os.chown(devices / name, 0, 4321)
    ground.context = replace(ground.context, dev=str(devices))
    script = "ls /dev/dri\ntest -c /dev/kfd\necho $ROCR_VISIBLE_DEVICES $HIP_VISIBLE_DEVICES\nid -G\n"

    code, log = ground.run(A, busybox, script, gpus=(0, 2), nodes=("renderD128", "renderD130"))

    assert code == 0
    said = log.decode().splitlines()
    assert said[:3] == ["renderD128", "renderD130", "0,1 0,1"]
    assert "4321" in said[3].split()
