"""The real parts do what the other tests count on."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dstack.client.embedded import answers, connect
from tests.environment import needs
from tests.environment.daemon import Daemon
from tests.environment.private import possible, private
from tests.environment.product import Home, program, servers
from tests.environment.sshd import Sshd
from tests.environment.waiting import until


def test_a_user_who_is_not_root_runs_docker_over_ssh(sshd: Sshd, busybox: str) -> None:
    asked = sshd.ssh("id", "-u;", "docker", "run", "--rm", "--network", "none", busybox, "echo", "hello")
    answer = subprocess.run(asked, capture_output=True, text=True, check=True)
    uid, said = answer.stdout.split()
    assert int(uid) > 0
    assert said == "hello"


def test_the_images_have_what_the_examples_call(docker: list[str], python_image: str) -> None:
    script = (
        "echo six >r && pip3 install -r r && curl -O https://example.org/input.txt && wc -l <input.txt && git --version"
    )
    asked = [*docker, "run", "--rm", "--network", "none", python_image, "bash", "-ec", f"cd /tmp; {script}; python3 -V"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[:2] == ["Requirement already satisfied: six", "2"]


def test_a_cut_connection_ends_the_client_and_leaves_sshd(sshd: Sshd) -> None:
    client = subprocess.Popen(sshd.ssh("echo ready; sleep 600"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert client.stdout is not None
    with client, client.stdout as out:
        assert out.readline() == b"ready\n"
        sshd.cut()
        assert client.wait(30) == 255
    assert subprocess.run(sshd.ssh("true"), check=False).returncode == 0


def test_a_container_outlives_its_daemon(own_dockerd: Daemon) -> None:
    own_dockerd.docker("run", "-d", "--name", "long", "dstack-test/busybox:1", "sleep", "600")
    started = own_dockerd.docker("inspect", "--format", "{{.State.Pid}}", "long")
    own_dockerd.kill()
    own_dockerd.start()
    until(lambda: own_dockerd.docker("ps", "-q"), "the container is still listed")
    assert own_dockerd.docker("inspect", "--format", "{{.State.Pid}}", "long") == started


@pytest.mark.parametrize("words", [["--help"], ["validate"], ["server", "status", "--json"], ["runs", "--nothing"]])
def test_a_forked_command_is_as_one_that_is_started(dstack_home: Home, tmp_path: Path, words: list[str]) -> None:
    environment = {**dstack_home.environment, "NO_COLOR": "1"}
    started = subprocess.run(
        [program(), *words], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )

    forked = dstack_home.run(*words, cwd=tmp_path, env={"NO_COLOR": "1"})

    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)


def test_a_forked_command_that_takes_too_long_is_killed(dstack_home: Home) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        dstack_home.run("server", "start", "--foreground", timeout=1)

    until(lambda: not answers(dstack_home.dstack), "it is gone")


def test_a_forked_server_is_as_one_that_is_started(dstack_home: Home) -> None:
    dstack_home.serve()
    (first,) = servers(dstack_home.dstack)
    listed = dstack_home.run("runs", "--json").stdout

    os.kill(first, signal.SIGKILL)
    until(lambda: not servers(dstack_home.dstack), "it is gone")

    assert dstack_home.run("runs", "--json").stdout == listed == "[]\n"
    (second,) = servers(dstack_home.dstack)
    assert second != first


def test_a_forked_command_does_not_wait_for_one_that_began_later(dstack_home: Home, tmp_path: Path) -> None:
    foreground = ("server", "start", "--foreground")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(dstack_home.run, *foreground)
        until(lambda: answers(dstack_home.dstack), "the first runs")
        second = pool.submit(dstack_home.run, *foreground, env={"DSTACK_HOME": str(tmp_path)})
        until(lambda: answers(tmp_path), "the second runs")

        connect(dstack_home.dstack).shutdown()
        first_ended = first.result(timeout=60)

        assert first_ended.returncode == 0
        assert not second.done()
        connect(tmp_path).shutdown()


def test_what_is_private_leaves_nothing_and_shares_no_user_id() -> None:
    # Given a lock that somebody outside holds for a moment
    if not possible():
        needs.missing("namespaces can't be had here")
    lock = Path("/etc/dstack-test.lock")
    lock.touch()

    # When a user is added in namespaces of their own
    try:
        asked = private(["sh", "-c", "ls /etc/*.lock; useradd -m -d /tmp/ann dstack-ann && id -u dstack-ann; ls /tmp"])
        done = subprocess.run(asked, cwd="/", capture_output=True, text=True, check=True)
    finally:
        lock.unlink()

    # Then it has an id that nobody has outside, and nothing is left of it
    user, *files = done.stdout.splitlines()
    assert int(user) >= 100_000
    assert files == ["ann"]
    assert "dstack-ann" not in Path("/etc/passwd").read_text()
    assert not Path("/tmp/ann").exists()
