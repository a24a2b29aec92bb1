"""scripts/lib/machine.sh and parts.sh name what is really missing, and the real cause of a failure."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.environment.waiting import until

ROOT = Path(__file__).parents[1]
HEAD = "set -euo pipefail; . scripts/lib/machine.sh; . scripts/lib/parts.sh;"


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder of programs that stand in front of the machine's."""
    (tmp_path / "bin").mkdir()
    return tmp_path / "bin"


def stub(stubs: Path, name: str, script: str) -> None:
    (stubs / name).write_text(f"#!/bin/sh\n{script}\n")
    (stubs / name).chmod(0o755)


def bash(stubs: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run bash with the library, without USER, as on a machine whose services set none."""
    known = {"PATH": f"{stubs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", HEAD + script, "quickstart"], cwd=ROOT, env=known, capture_output=True, text=True
    )
    for path in done.stdout.splitlines():
        if path.startswith("/tmp/dstack-install-"):
            Path(path).unlink(missing_ok=True)
    return done


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "you may not use Docker"),
        ("Got permission denied while trying to connect", "you may not use Docker"),
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is it running?", "Docker is not running"),
    ],
)
def test_why_docker_can_not_be_used(stubs: Path, answer: str, said: str) -> None:
    stub(stubs, "docker", f"echo '{answer}' >&2; exit 1")

    done = bash(stubs, "refuse_docker")

    assert done.returncode == 1
    assert done.stderr.startswith(f"quickstart: {said}")
    assert "run this again:  sudo " in done.stderr


def test_a_python_without_venv_lacks_only_that(stubs: Path) -> None:
    stub(stubs, "python3", 'case "$*" in *ensurepip*) exit 1;; esac; exit 0')

    assert bash(stubs, 'need_python; echo "${missing[*]}"; rm "$install_log"').stdout == "python3-venv\n"


PIP = """\
WARNING: Retrying (Retry(total=1, connect=None)) after connection broken by 'NewConnectionError: refused': /simple/x/
WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError: refused': /simple/x/
ERROR: Could not find a version that satisfies the requirement x (from versions: none)
ERROR: No matching distribution found for x
"""
APT = """\
Reading package lists...
W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.debian.org'
E: Unable to locate package docker.io
"""
BUILD = """\
  error: subprocess-exited-with-error
  x Preparing editable metadata did not run successfully.
      OSError: [Errno 28] No space left on device
  note: This error originates from a subprocess
"""


@pytest.mark.parametrize(
    ("output", "cause"),
    [(PIP, "NewConnectionError: refused"), (APT, "Temporary failure resolving"), (BUILD, "No space left on device")],
)
def test_the_cause_of_a_failed_installation_is_shown(stubs: Path, output: str, cause: str) -> None:
    stub(stubs, "pip", f"cat <<'END'\n{output}END\nexit 1")

    done = bash(stubs, 'echo "$install_log"; logged pip install .')

    assert done.returncode == 1
    assert done.stderr.startswith("quickstart: 'pip install .' failed.")
    assert done.stderr.count(cause) == 1


def test_interrupted_it_leaves_no_log(stubs: Path, tmp_path: Path) -> None:
    script = HEAD + f'echo "$install_log" >{tmp_path}/name; sleep 600 & wait'
    process = subprocess.Popen(["bash", "-c", script], cwd=ROOT, start_new_session=True)
    name = tmp_path / "name"
    until(lambda: name.exists() and name.read_text().endswith("\n"), "it has its log", 60)

    os.killpg(process.pid, signal.SIGTERM)

    assert process.wait(60) == 143
    assert not Path(name.read_text().strip()).exists()
