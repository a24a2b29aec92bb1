"""Images come from a registry: once a host, and with its words when they don't."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.project import single
from tests.environment.registry import Registry

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def registry(tmp_path: Path, docker: list[str]) -> Iterator[Registry]:
    found = Registry(tmp_path / "registry")
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def image(registry: Registry, docker: list[str], busybox: str) -> Iterator[str]:
    """An image that the registry has and the host does not."""
    name = f"{registry.address}/team/box:1"
    for words in (["tag", busybox, name], ["push", "-q", name], ["rmi", name]):
        subprocess.run([*docker, *words], check=True, capture_output=True)
    yield name
    subprocess.run([*docker, "rmi", "-f", name], check=True, capture_output=True)


def job_of(cli: Cli, run: str) -> dict[str, Any]:
    job: dict[str, Any] = json.loads(cli("runs", run, "--json").stdout)["jobs"][0]
    return job


def test_an_image_is_pulled_once_however_many_jobs_wait_for_it(
    cli: Cli, runner: str, registry: Registry, image: str, tmp_path: Path
) -> None:
    folder = single(tmp_path / "p", image, "echo hello")
    before = len(re.findall("GET /v2/team/box/blobs", registry.log))

    for name in ("one", "two", "three"):
        assert cli("run", "job", "--name", name, "-d", cwd=folder).returncode == 0
    assert [cli("wait", name).returncode for name in ("one", "two", "three")] == [0, 0, 0]

    assert job_of(cli, "one")["image_digest"].startswith(f"{registry.address}/team/box@sha256:")
    manifests = re.findall(r'"GET /v2/team/box/manifests/1 ', registry.log)
    assert len(manifests) <= 1, registry.log
    assert len(re.findall("GET /v2/team/box/blobs", registry.log)) >= before


def test_a_tag_that_the_registry_does_not_have(cli: Cli, runner: str, registry: Registry, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", f"{registry.address}/team/none:9", "true", more="retry: {attempts: 2, on: [error]}")

    done = cli("run", "job", "--name", "n", cwd=folder)

    assert done.returncode == 125
    assert f"pulling {registry.address}/team/none:9 failed" in done.stderr
    assert f"manifest for {registry.address}/team/none:9 not found: manifest unknown" in done.stderr
    assert job_of(cli, "n")["attempt"] == 2


def test_a_registry_that_is_not_there(cli: Cli, runner: str, tmp_path: Path) -> None:
    folder = single(tmp_path / "p", "127.0.0.1:9/team/box:1", "true")

    done = cli("run", "job", cwd=folder)

    assert done.returncode == 125
    assert "pulling 127.0.0.1:9/team/box:1 failed" in done.stderr
    assert "connection refused" in done.stderr
