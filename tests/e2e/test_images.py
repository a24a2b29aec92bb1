"""Images come from a registry: once per host, with a login if needed, and with the registry's error if that fails."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.model.text.units import seconds
from tests.e2e.project import single
from tests.environment.account import Account
from tests.environment.product import Home, program
from tests.environment.pushing import BIG, push
from tests.environment.registry import PASSWORD, USER, Registry
from tests.environment.waiting import until
from tests.unit.cli.terminal import type_into

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
Push = Callable[..., str]

AUTH = f"registry-auth: {{username: {USER}, password: REGISTRY_PASSWORD}}"


@pytest.fixture(scope="module")
def open_registry(session_folder: Path, docker: list[str]) -> Iterator[Registry]:
    found = Registry(session_folder / "registry")
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def registry(open_registry: Registry) -> Iterator[Registry]:
    """A registry that needs no login."""
    try:
        yield open_registry
    finally:
        open_registry.way.speed = None


@pytest.fixture
def closed(tmp_path: Path, docker: list[str]) -> Iterator[Registry]:
    """A registry that needs a login."""
    found = Registry(tmp_path / "closed", closed=True)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def pushed(docker: list[str], busybox: str) -> Iterator[Push]:
    """Makes an image that only the registry has: `pushed(registry, "team/box:1", size=)`."""
    made: list[str] = []

    def make(registry: Registry, name: str, size: int = 0) -> str:
        made.append(push(docker, registry, busybox, name, size=size))
        return made[-1]

    yield make
    for image in made:
        subprocess.run([*docker, "rmi", "-f", image], check=True, capture_output=True)


def run_of(cli: Cli, run: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)
    return found


def job_of(cli: Cli, run: str) -> dict[str, Any]:
    job: dict[str, Any] = run_of(cli, run)["jobs"][0]
    return job


def reason_of(cli: Cli, run: str) -> str:
    return job_of(cli, run)["reason"] or ""


def test_an_image_is_pulled_once_however_many_jobs_wait_for_it_and_says_how_far_it_is(
    cli: Cli, dstack_home: Home, runner: str, registry: Registry, pushed: Push, tmp_path: Path
) -> None:
    image = pushed(registry, "team/big:1", BIG)
    folder = single(tmp_path / "p", image, "echo hello", more="max-duration: 5s")
    registry.way.speed = BIG / 60
    before = registry.log.count('"GET /v2/team/big/manifests/1 ')

    followed = dstack_home.popen("run", "job", "--name", "one", cwd=folder)
    until(lambda: cli("runs", "one").returncode == 0, "the first is submitted", 60)
    assert cli("run", "job", "--name", "two", "-d", cwd=folder).returncode == 0
    how_far = rf"pulling {re.escape(image)} on box: 1 of 2 layers, [0-9.]+ [kM]B of 6 MB"
    until(lambda: all(re.fullmatch(how_far, reason_of(cli, name)) for name in ("one", "two")), "both say it", 60)

    def go_on() -> str:
        began = seconds(run_of(cli, "three")["submitted_at"])
        until(lambda: time.time() > began + 5.5, "only the time that it runs counts", 10)
        registry.way.speed = None
        return ""

    known = dstack_home.environment
    at_terminal = [str(program()), "run", "job", "--name", "three"]
    shown, code = type_into(at_terminal, [("B of 6 MB", go_on)], cwd=folder, environment=known, columns=160)
    out, err = followed.communicate(timeout=120)
    assert cli("wait", "two").returncode == 0

    assert (followed.returncode, out) == (0, b"hello\n")
    assert f"job: preparing on box: pulling {image} on box" in err.decode()
    assert err.decode().count("preparing on box: pulling") == 1, "a file gets a line now and then"
    assert code == 0
    assert shown.count("preparing on box: pulling") == 1, "a terminal has its status line"
    assert job_of(cli, "one")["image_digest"].startswith(f"{image.rpartition(':')[0]}@sha256:")
    assert registry.log.count('"GET /v2/team/big/manifests/1 ') - before <= 1, registry.log


def test_a_stop_during_a_pull_works_at_once_and_others_go_on(
    cli: Cli, runner: str, registry: Registry, pushed: Push, user: Account, docker: list[str], tmp_path: Path
) -> None:
    image = pushed(registry, "team/slow:1", BIG)
    folder = single(tmp_path / "p", image, "echo hello")
    registry.way.speed = BIG / 600
    for name in ("one", "two", "three"):
        assert cli("run", "job", "--name", name, "-d", cwd=folder).returncode == 0
    until(lambda: all("layers" in reason_of(cli, name) for name in ("one", "two", "three")), "all wait", 60)

    assert cli("stop", "one").returncode == 0
    assert cli("wait", "one", timeout=20).returncode == 143
    assert cli("stop", "two", "--abort", "-y").returncode == 0
    assert cli("wait", "two", timeout=20).returncode == 143

    assert reason_of(cli, "one") == reason_of(cli, "two") == "stopped before it started"
    assert "layers" in reason_of(cli, "three")
    assert cli("stop", "--all", "-y").returncode == 0
    assert cli("wait", "three", timeout=20).returncode == 143
    pulls = user.home / ".dstack-host"
    until(lambda: not list(pulls.glob("*/*/pulls/*/")), "nothing is left of the pull on the host", 30)
    inspected = subprocess.run([*docker, "image", "inspect", image], capture_output=True, check=False)
    assert inspected.returncode != 0


def test_a_login_by_secret_fetches_and_is_seen_nowhere(
    cli: Cli,
    dstack_home: Home,
    runner: str,
    closed: Registry,
    pushed: Push,
    user: Account,
    docker: list[str],
    tmp_path: Path,
) -> None:
    image = pushed(closed, "team/private:1", BIG)
    folder = single(tmp_path / "p", image, "env", more=AUTH)
    unset = cli("run", "job", cwd=folder)
    assert cli("secrets", "set", "REGISTRY_PASSWORD", stdin="wrong").returncode == 0
    wrong = cli("run", "job", cwd=folder)
    assert cli("secrets", "set", "REGISTRY_PASSWORD", stdin=PASSWORD).returncode == 0
    closed.way.speed = BIG / 4
    assert cli("run", "job", "--name", "right", "-d", cwd=folder).returncode == 0
    until(lambda: " MB of 6 MB" in reason_of(cli, "right"), "it is pulled", 60)
    arguments = b"".join(path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    on_host = subprocess.run(["grep", "-rlF", "--", "pass word$1", user.home], capture_output=True, text=True)
    closed.way.speed = None
    right = cli("wait", "right")

    assert unset.returncode == 2
    assert "job needs the secret 'REGISTRY_PASSWORD', which is not set\nhint: dstack secrets set" in unset.stderr
    assert wrong.returncode == 125
    assert (
        f"pulling {image} failed: the registry rejected the login of 'ann' with the secret REGISTRY_PASSWORD: "
        in wrong.stderr
    )
    assert "no basic auth credentials" in wrong.stderr or "unauthorized" in wrong.stderr
    assert "set the password again: dstack secrets set REGISTRY_PASSWORD" in wrong.stderr
    assert right.returncode == 0, right.stderr
    assert PASSWORD not in cli("logs", "right").stdout
    assert "REGISTRY_PASSWORD" not in cli("logs", "right").stdout
    assert b"pass word" not in arguments
    assert not on_host.stdout
    without = single(tmp_path / "q", image, "true")
    subprocess.run([*docker, "rmi", "-f", image], check=True, capture_output=True)
    refused = cli("run", "job", cwd=without)
    assert refused.returncode == 125
    assert "the registry requires a login, or has no such image: " in refused.stderr
    assert "registry-auth" in refused.stderr

    own = user.home / ".docker"
    own.mkdir()
    login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    (own / "config.json").write_text(json.dumps({"auths": {closed.address: {"auth": login}}}))
    shutil.chown(own, user.uid, user.uid)
    shutil.chown(own / "config.json", user.uid, user.uid)
    try:
        assert cli("run", "job", cwd=without).returncode == 0, "the machine's user is logged in"
    finally:
        shutil.rmtree(own)


def test_a_tag_that_the_registry_does_not_have(cli: Cli, runner: str, registry: Registry, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", f"{registry.address}/team/none:9", "true", more="retry: {attempts: 2, on: [error]}")

    done = cli("run", "job", "--name", "n", cwd=folder)

    assert done.returncode == 125
    assert f"pulling {registry.address}/team/none:9 failed: the registry has no such image: " in done.stderr
    assert f"manifest for {registry.address}/team/none:9 not found: manifest unknown" in done.stderr
    assert "check 'image' in .dstack/workflows.yaml" in done.stderr
    assert job_of(cli, "n")["attempt"] == 2


def test_a_registry_that_is_not_there(cli: Cli, runner: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", "127.0.0.1:9/team/box:1", "true")

    done = cli("run", "job", cwd=folder)

    assert done.returncode == 125
    assert "pulling 127.0.0.1:9/team/box:1 failed: box can't reach the registry: " in done.stderr
    assert "connection refused" in done.stderr
