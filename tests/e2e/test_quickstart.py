"""scripts/quickstart is quick, works twice in a row and leaves nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment.waiting import until

MOUNTS = "{{.Names}} {{.Mounts}}"
README = Path(__file__).parents[2] / "README.md"
QUICKSTART = Path(__file__).parents[2] / "scripts" / "quickstart"


@pytest.fixture(scope="module")
def environment(docker: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's environment with an empty home, on a machine that has Docker."""
    kept = {name: os.environ[name] for name in ("PATH", "DOCKER_HOST") if name in os.environ}
    return {**kept, "HOME": str(tmp_path_factory.mktemp("home")), "USER": "you"}


@pytest.fixture(autouse=True)
def _leaves_nothing(docker: list[str], environment: dict[str, str]) -> Iterator[None]:
    before = left(docker)
    yield
    assert left(docker) == before
    assert not list(Path(environment["HOME"]).iterdir())


def left(docker: list[str]) -> dict[str, set[str]]:
    """Return everything on the machine that a quickstart might leave."""
    return {
        "folders": {str(path) for path in Path("/tmp").glob("dstack-??????")},
        "images": set(ask(*docker, "images", "--quiet", "--filter", "label=dstack.made-by=quickstart")),
        "containers": {
            line for line in ask(*docker, "ps", "-a", "--no-trunc", "--format", MOUNTS) if "/tmp/dstack-" in line
        },
        "processes": {line for line in ask("ps", "-eo", "args") if "/tmp/dstack-" in line},
    }


def ask(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def test_it_runs_a_project_twice_and_the_second_time_from_the_cache(environment: dict[str, str]) -> None:
    began = time.monotonic()
    done = subprocess.run([QUICKSTART], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 60
    shown = [line for line in done.stdout.splitlines() if line.startswith("$ dstack run ")]
    assert len(shown) == 2
    first, second = done.stdout.split(shown[0])[1:]
    assert "artifacts download" in first
    assert "cached" in (second + done.stderr)
    printed = {anonymous(line) for line in (done.stdout + done.stderr).splitlines()}
    untrue = [line for line in readme_session() if anonymous(line) not in printed]
    assert not untrue, "README.md shows what dstack does not print"


def readme_session() -> list[str]:
    """Return the lines of the README's session, without empty lines and gaps."""
    (session,) = re.findall(r"^```console\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return [line for line in session.splitlines() if line not in ("", "...")]


def anonymous(line: str) -> str:
    """Replace the name of the run, durations and sizes in a line: they differ each time."""
    line = re.sub(r"\b[a-z]+-[a-z]+-[0-9]+\b", "run", line)
    return re.sub(r"\b[0-9.]+ k?B\b", "1 B", re.sub(r"\b[0-9.]+s\b", "1s", line))


def test_it_works_again(environment: dict[str, str]) -> None:
    done = subprocess.run([QUICKSTART], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_interrupted_it_cleans_up(environment: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "output"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [QUICKSTART], env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    until(lambda: b"$ dstack run" in output.read_bytes(), "the first run begins", 60)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
