"""A user without root and sudo collects and removes what containers leave."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.commands.artifacts.collect import fetch, listing, made
from dstack.commands.job.stop import discard
from dstack.commands.machine.uninstall import running, uninstall
from dstack.errors import CommandError
from dstack.model.job.manifest import File
from dstack.model.project.workflow import Artifact
from tests.environment.account import Account
from tests.environment.waiting import until
from tests.unit.commands.hosts import Folder

CLOSED = """
mkdir -p out/closed
echo one > out/closed/one
echo two > out/two
ln -s two out/link
ln -s /etc/passwd out/outside
chmod 0000 out/closed/one out/two
chmod 0700 out/closed
chown -h 1234:5678 out/two out/link
chown 77:77 . /.dstack
chmod 0 .
"""

Launch = Callable[..., str]


@pytest.fixture
def host(user: Account, session_folder: Path, docker: list[str], request: pytest.FixtureRequest) -> Folder:
    """The user's account on this machine, with a folder that nothing else uses."""
    return Folder(user.home / request.node.name.replace("[", "-").strip("]"), account(user), docker=" ".join(docker))


def account(user: Account) -> tuple[str, ...]:
    return ("runuser", "-u", user.name, "--", "sh")


def as_user(user: Account, *words: str) -> str:
    done = subprocess.run(["runuser", "-u", user.name, "--", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def launch(host: Folder, user: Account, docker: list[str], busybox: str) -> Iterator[Launch]:
    """Start a job's container as the engine does, and wait for its end unless it should keep running."""
    names: list[str] = []

    def start(script: str, *, attempt: str = "j1", of: Folder = host, wait: bool = True) -> str:
        job = of.base / "jobs" / attempt
        as_user(user, "mkdir", "-p", f"{job}/io", f"{job}/workflow")
        names.append(f"dstack-{attempt}")
        labels = ("--label", f"dstack.job={attempt}", "--label", f"dstack.server={of.context.layout.server}")
        mounts = ("-v", f"{job}/io:/.dstack", "-v", f"{job}/workflow:/workflow", "-v", "/somewhere")
        command = ["run", "-d", "--name", names[-1], *labels, *mounts, "--workdir", "/workflow", "--network", "none"]
        subprocess.run([*docker, *command, busybox, "sh", "-c", script], check=True, capture_output=True)
        if wait:
            subprocess.run([*docker, "wait", names[-1]], check=True, capture_output=True)
        return names[-1]

    yield start
    for name in names:
        subprocess.run([*docker, "rm", "-f", "-v", name], check=False, capture_output=True)


@pytest.fixture
def empty_image(docker: list[str]) -> Iterator[str]:
    """An image without any file."""
    made = subprocess.run([*docker, "import", "-"], input=bytes(10240), capture_output=True, check=True)
    name = made.stdout.decode().strip()
    yield name
    subprocess.run([*docker, "rmi", "-f", name], check=True, capture_output=True)


def labelled(docker: list[str], what: str, server: str) -> list[str]:
    listed = [*docker, what, "-aq", "--filter", f"label=dstack.server={server}"]
    return subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()


def file(path: str, content: bytes, mode: int) -> File:
    return File(path, len(content), mode, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("image", ["its own", "one without files", "one that is gone"])
def test_closed_files_of_root_are_collected(
    host: Folder, user: Account, docker: list[str], launch: Launch, busybox: str, empty_image: str, image: str
) -> None:
    launch(CLOSED)
    name = {"its own": busybox, "one without files": empty_image}.get(image, "dstack-test/never-there:1")

    found = host.ask(listing(host.context, "j1", "", name, (Artifact(path="out"),)))

    assert found.files == (
        file("out/closed/one", b"one\n", 0o400),
        File("out/link", 0, 0o777, "", "two"),
        file("out/two", b"two\n", 0o400),
    )
    assert found.refused == ("'out/outside' is a link out of its artifact, to '/etc/passwd'",)
    assert host.result(fetch(host.context, "j1", made(""), found.files)).stdout == b"one\ntwo\n"
    owners = as_user(user, "find", str(host.base), "!", "-user", user.name)
    assert owners == ""
    assert Path("/etc/passwd").stat().st_uid == 0
    assert labelled(docker, "images", "server1") == []
    assert len(labelled(docker, "ps", "server1")) == 1


def test_a_container_that_is_about_to_end_is_waited_for(host: Folder, docker: list[str], launch: Launch) -> None:
    name = launch("trap 'echo late > out; exit' TERM; echo early > out; sleep 600 & wait", wait=False)
    until((host.base / "jobs/j1/workflow/out").exists, "the job has written")

    found = host.ask(listing(host.context, "j1", "", "image", (Artifact(path="out"),)))

    assert found.files == (file("out", b"late\n", 0o644),)
    state = [*docker, "inspect", "--format", "{{.State.Running}}", name]
    assert subprocess.run(state, capture_output=True, check=True).stdout == b"false\n"


def test_discarding_leaves_nothing_of_a_job(host: Folder, docker: list[str], launch: Launch, busybox: str) -> None:
    launch("touch kept", attempt="other")
    name = launch(CLOSED + "\n: > /.dstack/ready; sleep 600", wait=False)
    until(lambda: (host.base / "jobs/j1/io/ready").exists(), "the job has written")
    volumes = mounted_volumes(docker, name)
    assert volumes

    for _ in range(2):
        host.ask(discard(host.context, "j1", busybox))

        assert [path.name for path in (host.base / "jobs").iterdir()] == ["other"]
        assert subprocess.run([*docker, "inspect", name], capture_output=True, check=False).returncode != 0
    assert not volumes & set(subprocess.run([*docker, "volume", "ls", "-q"], **TEXT).stdout.split())
    assert (host.base / "jobs/other/workflow/kept").exists()


TEXT = {"capture_output": True, "text": True, "check": True}


def mounted_volumes(docker: list[str], name: str) -> set[str]:
    asked = [*docker, "inspect", "--format", "{{range .Mounts}}{{.Name}} {{end}}", name]
    return set(subprocess.run(asked, **TEXT).stdout.split())


def test_running_names_the_live_attempts_of_this_server(host: Folder, user: Account, launch: Launch) -> None:
    launch("true", attempt="ended")
    launch("sleep 600", attempt="j1-2", wait=False)
    other = Folder(host.root, host.shell, docker=host.docker, server="server2")
    launch("sleep 600", attempt="foreign", of=other, wait=False)

    assert host.ask(running(host.context)) == ["j1-2"]
    assert other.ask(running(other.context)) == ["foreign"]


def test_leaving_takes_everything_of_this_server_and_nothing_else(
    host: Folder, docker: list[str], launch: Launch
) -> None:
    other = Folder(host.root, host.shell, docker=host.docker, server="server2")
    launch(CLOSED)
    launch("sleep 600", attempt="j2", wait=False)
    foreign = launch("sleep 600", attempt="foreign", of=other, wait=False)

    for _ in range(2):
        assert host.ask(uninstall(host.context)) == []

        assert not host.base.exists()
        assert labelled(docker, "ps", "server1") == labelled(docker, "images", "server1") == []
        assert (other.base / "jobs/foreign").exists()
        assert other.ask(running(other.context)) == ["foreign"]
    assert foreign == "dstack-foreign"

    assert other.ask(uninstall(other.context)) == []
    assert not host.root.exists()


def test_leaving_a_machine_without_docker(host: Folder, user: Account) -> None:
    bare = Folder(host.root, host.shell, docker="no-such-program")
    as_user(user, "mkdir", "-p", f"{bare.base}/jobs/j1")

    assert bare.ask(uninstall(bare.context)) == []
    assert not bare.root.exists()


def test_leaving_while_docker_does_not_answer_is_an_error(host: Folder, user: Account) -> None:
    dead = Folder(host.root, host.shell, docker=f"docker -H unix://{os.devnull}")
    as_user(user, "mkdir", "-p", f"{dead.base}/jobs/j1")

    with pytest.raises(CommandError, match="uninstalling from the machine failed"):
        dead.ask(uninstall(dead.context))
    assert dead.base.exists()
