"""Which modules a command may import: each costs time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack import __version__
from tests.unit.cli.conftest import environment, folder, project, server, state  # noqa: F401  (fixtures)

Imported = Callable[..., set[str]]

SERVERS_OWN = {
    "asyncio",
    "asyncssh",
    "boto3",
    "botocore",
    "cryptography",
    "git",
    "httpx",
    "jinja2",
    "rich",
    "sqlite_utils",
    "starlette",
    "urllib.request",
    "uvicorn",
}
PROBE = """
import sys
from dstack.cli import main
sys.argv = ["dstack", *sys.argv[1:]]
try:
    main()
finally:
    sys.stdout.flush()
    print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.fixture
def imported(environment: dict[str, str], server: str, project: Path) -> Imported:  # noqa: F811
    """Runs a command and returns the modules that it imported."""

    def run(*arguments: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", PROBE, *arguments],
            cwd=project,
            env={**environment, "DSTACK_SERVER_URL": server},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return set(done.stderr.split())

    return run


@pytest.mark.parametrize(
    "words",
    [
        "--version",
        "--help",
        "run --help",
        "run train --help",
        "run -d train",
        "run train",
        "runs",
        "runs --json",
        "logs brave",
        "artifacts list brave",
    ],
)
def test_commands_import_nothing_of_the_servers(imported: Imported, words: str) -> None:
    assert imported(*words.split()) & SERVERS_OWN == set()


@pytest.mark.parametrize(("words", "most"), [("runs", 290), ("logs brave", 290)])
def test_a_query_imports_little(imported: Imported, words: str, most: int) -> None:
    found = imported(*words.split())

    assert (
        found & {"subprocess", "traceback", "tempfile", "dstack.snapshot.take", "dstack.model.project.project"} == set()
    )
    assert len(found) <= most


def test_the_version_needs_nothing_at_all(imported: Imported) -> None:
    assert imported("--version") & {"click", "msgspec", "http.client", "yaml"} == set()


def test_the_version(environment: dict[str, str]) -> None:  # noqa: F811
    words = [sys.executable, "-m", "dstack.cli", "--version"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)

    assert done.stdout == f"dstack {__version__}\n"
