"""The CLI with a fake server, in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environment import prefork
from tests.unit.cli.fake_server import State, job_view, run_view, serving

ROOT = Path(__file__).parents[3]
Cli = Callable[..., "subprocess.CompletedProcess[bytes]"]
Alone = Callable[..., "subprocess.CompletedProcess[bytes]"]

WORKFLOWS = """\
workflows:
  - name: prepare
    image: busybox
    help: Make the data
    commands: [echo data]
  - name: train
    image: busybox
    help: Fine-tune the model
    commands: [echo $config_args]
    depends-on:
      workflows: [prepare]
"""
CONFIGS = """\
configs:
  global: {model: 124M, runner: none}
  train: {batch_size: 1, learning_rate: 0.00002, amp: False, name: run1, seed: null}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ds-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def state() -> State:
    """The fake server's state: one run with one job."""
    state = State()
    state.hold(run_view("brave-otter-7", [job_view("0123456789ab", "train")]), {"0123456789ab": b"one\ntwo\r\nthree"})
    return state


@pytest.fixture
def server(state: State, folder: Path) -> Iterator[str]:
    """The fake server's unix socket."""
    with serving(state, folder / "s") as address:
        yield address


@pytest.fixture
def project(folder: Path) -> Path:
    """A project with two workflows, not in a git repository."""
    root = folder / "project"
    (root / ".dstack").mkdir(parents=True)
    (root / ".dstack" / "workflows.yaml").write_text(WORKFLOWS)
    (root / ".dstack" / "configs.yaml").write_text(CONFIGS)
    (root / "train.py").write_text("print('hello')\n")
    return root


@pytest.fixture
def environment(folder: Path) -> dict[str, str]:
    """The environment of a cron job, with the path of dstack."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "DSTACK_HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "PYTHONWARNINGS": "error",
    }


@pytest.fixture
def cli(environment: dict[str, str], server: str, project: Path) -> Cli:
    """Runs `dstack ARGUMENTS` in the project against the fake server; no terminal."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        extra = options.pop("environment", {})
        cwd = options.pop("cwd", project)
        assert isinstance(extra, dict)
        assert isinstance(cwd, Path)
        whole = {**environment, "DSTACK_SERVER_URL": server, **extra}
        if not options:
            return prefork.run(arguments, cwd, whole, 60)
        return subprocess.run(  # type: ignore[call-overload,no-any-return]
            command(*arguments),
            cwd=cwd,
            env=whole,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            **options,
        )

    return run


def command(*arguments: str) -> list[str]:
    """Return a command line that starts dstack from this checkout."""
    return [sys.executable, "-m", "dstack.cli", *arguments]


@pytest.fixture
def alone(environment: dict[str, str], project: Path, folder: Path) -> Iterator[Alone]:
    """Runs `dstack ARGUMENTS`, which starts a server of its own."""

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[bytes]:
        return prefork.run(arguments, project, {**environment, "PYTHONWARNINGS": "default", **extra}, 90)

    yield run
    run("server", "stop")
