"""Fixtures for the real services in `tests/environment/` and the images in `tests/images.py`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests import images as made
from tests.environment import account, daemon, needs
from tests.environment.product import Home
from tests.environment.proxy import Proxy
from tests.environment.s3 import S3
from tests.environment.sshd import Sshd
from tests.environment.waiting import until

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("dev", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


Cli = Callable[..., "subprocess.CompletedProcess[str]"]

DATA = Path(__file__).parent / "data"
SOCKET = Path("/var/run/docker.sock")


WITH_DAEMONS = {
    "test_adding.py",
    "test_ends.py",
    "test_gpus.py",
    "test_host_protocol.py",
    "test_life.py",
    "test_machines.py",
    "test_survival.py",
}
SHARED = pytest.StashKey[daemon.Daemon]()


def pytest_configure(config: pytest.Config) -> None:
    """Clean up on SIGTERM as on Ctrl-C, and don't ignore Ctrl-C, as processes that a script starts in the background
    do. All workers share one Docker daemon: if none answers, their parent process starts one."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shares = getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput")
    if shares and shutil.which("dockerd") and os.geteuid() == 0 and not daemon.answers():
        folder = Path(tempfile.mkdtemp(prefix="ds-", dir="/tmp"))
        folder.chmod(0o755)
        config.stash[SHARED] = daemon.Daemon(folder, SOCKET)
        config.stash[SHARED].start()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Run all tests of a file in one worker, because they share names and folders. Also run all files in one worker
    whose tests start a Docker daemon or check why a container is gone: a daemon that ends on the same machine counts as
    a restart of Docker."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "daemons" if Path(file).name in WITH_DAEMONS else file

    return ByFile(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    if SHARED in config.stash:
        config.stash[SHARED].close()


@pytest.fixture(scope="session")
def session_folder() -> Iterator[Path]:
    """A folder with a short path that other users may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="ds-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def docker(session_folder: Path) -> Iterator[list[str]]:
    """A docker command line that works: the machine's Docker, or else a daemon for this session."""
    if not shutil.which("docker"):
        needs.missing("docker is not installed; install it: apt-get install docker.io")
    if daemon.answers():
        yield ["docker"]
        return
    needs.root("Docker, which does not answer here,")
    own = daemon.Daemon(session_folder / "docker", socket=SOCKET)
    try:
        own.start()
        yield ["docker"]
    finally:
        own.close()


@pytest.fixture(scope="session")
def images(session_folder: Path, docker: list[str]) -> Iterator[made.Images]:
    """Makes images: `images.make(BUSYBOX)`; see tests/images.py."""
    images = made.Images(session_folder, docker, shared=True)
    try:
        yield images
    finally:
        images.close()


@pytest.fixture(scope="session")
def busybox(images: made.Images) -> str:
    """The name of an image with only busybox."""
    images.make(made.BUSYBOX)
    return made.BUSYBOX


@pytest.fixture(scope="session")
def python_image(images: made.Images) -> str:
    """The name of an image with bash, coreutils, git and Python."""
    images.make(made.PYTHON)
    return made.PYTHON


@pytest.fixture(scope="session")
def tensorflow_image(images: made.Images) -> str:
    """The image's name in the founding example."""
    images.make(made.TENSORFLOW)
    return made.TENSORFLOW


@pytest.fixture(scope="session")
def user(session_folder: Path, docker: list[str]) -> Iterator[account.Account]:
    """A user who is not root and may use Docker."""
    person = account.create(f"dstack-t-{os.getpid()}", session_folder / "home", account.docker_group())
    try:
        yield person
    finally:
        remove_containers(docker, person.home)
        account.remove(person)


def remove_containers(docker: list[str], folder: Path) -> None:
    """Remove the containers that mount this folder: jobs that a test left running. Docker refuses if a removal is
    already in progress, so only the result is checked."""
    listed = [*docker, "ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Mounts}}"]

    def removed() -> bool:
        lines = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines()
        found = [line.partition(" ")[0] for line in lines if f"{folder}/" in line.partition(" ")[2]]
        if found:
            subprocess.run([*docker, "rm", "-f", *found], capture_output=True, check=False)
        return not found

    until(removed, "no container is left", 60)


@pytest.fixture(scope="session")
def sshd(session_folder: Path, user: account.Account) -> Iterator[Sshd]:
    """A real SSH server that accepts `user`."""
    variables = [f"DOCKER_HOST={os.environ['DOCKER_HOST']}"] if "DOCKER_HOST" in os.environ else []
    server = Sshd(session_folder / "sshd", user.name, [f"SetEnv {variable}" for variable in variables])
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def own_dockerd(images: made.Images) -> Iterator[daemon.Daemon]:
    """A Docker daemon for this test only, which it may kill and start again. It has the busybox image.

    Add it as a runner with `--docker "docker -H unix://SOCKET"`: its `command` joined by spaces.
    """
    own = daemon.Daemon(Path(tempfile.mkdtemp(prefix="dd-", dir="/tmp")))
    own.folder.chmod(0o755)
    try:
        own.start()
        images.beside(own.command).make(made.BUSYBOX)
        yield own
    finally:
        own.close()


@pytest.fixture
def dstack_home() -> Iterator[Home]:
    """A fresh home for the product; its server is stopped at the end."""
    home = Home()
    try:
        yield home
    finally:
        home.close()


@pytest.fixture
def cli(dstack_home: Home) -> Cli:
    """`cli(*arguments, cwd=, env=, stdin=, timeout=)` runs the installed `dstack` to its end."""
    return dstack_home.run


@pytest.fixture
def runner(dstack_home: Home, cli: Cli, sshd: Sshd, user: account.Account, docker: list[str]) -> str:
    """The name of a runner over real SSH, as a user who is not root. The machine has nothing of dstack's yet."""
    dstack_home.serve()
    remove_containers(docker, user.home)
    folder = user.home / ".dstack-host"
    while folder.exists():  # a script that the test before cut off may still write
        shutil.rmtree(folder, ignore_errors=True)
    address = f"{sshd.user}@{sshd.host}:{sshd.port}"
    identity = str(sshd.identity)
    done = cli("runners", "add", address, "--name", "box", "--identity", identity, "--fingerprint", sshd.fingerprint)
    assert done.returncode == 0, done.stderr
    return "box"


@pytest.fixture
def gpt2(tmp_path: Path, tensorflow_image: str) -> Path:
    """The founding example in its own git repository, with stand-ins for its programs."""
    project = tmp_path / "gpt2"
    shutil.copytree(DATA / "gpt2", project)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "GPT-2"]):
        identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        subprocess.run(["git", "-C", project, *identity, *command], check=True)
    return project


@pytest.fixture(scope="session")
def s3_server(session_folder: Path) -> Iterator[S3]:
    """A real S3 server with a bucket."""
    folder = session_folder / "s3"
    folder.mkdir()
    server = S3(folder)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def s3(s3_server: S3, dstack_home: Home) -> Iterator[S3]:
    """An empty bucket, with its credentials in dstack's environment."""
    dstack_home.environment.update(s3_server.environment)
    yield s3_server
    s3_server.restore()


@pytest.fixture
def proxy(s3: S3) -> Iterator[Proxy]:
    """A proxy in front of the S3 server that counts requests and fails on demand."""
    proxy = Proxy(s3.port)
    try:
        yield proxy
    finally:
        proxy.close()
