"""What the user's machine refuses is said in one sentence with the path and the reason, and leaves no crash file."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dstack.errors import FileError
from dstack.model.api.artifacts import ArtifactView
from dstack.plumbing.file_errors import naming, plain_errors
from tests.unit.cli.conftest import Cli, command
from tests.unit.cli.fake_server import State

JOB = "0123456789ab"
UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Even root obeys the permissions of its own files without its capabilities."""


@pytest.fixture
def environment(environment: dict[str, str], server: str) -> dict[str, str]:
    return {**environment, "DSTACK_SERVER_URL": server}


@pytest.fixture
def locked(folder: Path) -> Iterator[Path]:
    """A folder that nobody may write to."""
    path = folder / "locked"
    path.mkdir(mode=0o555)
    yield path
    path.chmod(0o755)


def run(
    environment: dict[str, str], cwd: Path, *words: str, stdout: int | None = None, stderr: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `dstack WORDS` as a user without privileges."""
    return subprocess.run(
        [*UNPRIVILEGED, *command(*words)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE if stderr is None else stderr,
        text=True,
        timeout=60,
    )


def says(done: subprocess.CompletedProcess[str], code: int, *sentence: str) -> None:
    """Check that a command printed one error with these parts, no bug."""
    assert done.returncode == code, done.stderr
    first, *hints = done.stderr.splitlines()
    assert first.startswith("dstack: error: ")
    assert all(part in first for part in sentence), first
    assert all(line.startswith("hint: ") for line in hints)
    assert "report it" not in done.stderr


def test_a_project_that_may_not_be_read(environment: dict[str, str], project: Path) -> None:
    (project / ".dstack").chmod(0)
    says(run(environment, project, "validate"), 2, f"{project}/.dstack/workflows.yaml can't be read: permission denied")
    (project / ".dstack").chmod(0o755)
    (project / ".dstack" / "configs.yaml").chmod(0)
    says(run(environment, project, "run", "train"), 2, ".dstack/configs.yaml can't be read: permission denied")


def test_settings_that_may_not_be_read(environment: dict[str, str], project: Path, folder: Path) -> None:
    config = folder / "home" / "config.json"
    config.parent.mkdir()
    config.write_text("{}")
    config.chmod(0)

    done = run(environment, project, "runs")
    says(done, 125, f"{config} can't be used: permission denied")
    assert f"ls -ld {config.parent} {config}" in done.stderr
    words = {"COMP_WORDS": "dstack logs ", "COMP_CWORD": "2", "_DSTACK_COMPLETE": "bash_complete"}
    completed = run(environment | words, project)
    assert (completed.returncode, completed.stdout, completed.stderr) == (0, "", "")


@pytest.mark.parametrize("words", ["init", "artifacts download brave", "artifacts download brave -o new/folder"])
def test_a_folder_that_may_not_be_written(environment: dict[str, str], state: State, locked: Path, words: str) -> None:
    state.artifacts.append(ArtifactView(job=JOB, workflow="train", path="a", size=0, mode=0o644, sha256=""))

    says(run(environment, locked, *words.split()), 125, "can't be used: permission denied")


def test_a_home_that_may_not_be_written(environment: dict[str, str], project: Path, locked: Path) -> None:
    changed = environment | {"DSTACK_HOME": str(locked / "home")}
    done = run(changed, project, "config", "--url", "http://h:1")
    says(done, 125, f"dstack's files can't be in {locked}/home: permission denied")
    assert "export DSTACK_HOME=" in done.stderr
    del changed["DSTACK_SERVER_URL"]
    says(run(changed, project, "runs"), 125, f"dstack's files can't be in {locked}/home: permission denied")


@pytest.mark.parametrize("words", ["config --url http://h:1", "runs", "server start --foreground", "server logs"])
def test_a_home_that_is_a_file(environment: dict[str, str], project: Path, words: str) -> None:
    del environment["DSTACK_SERVER_URL"]
    environment["DSTACK_HOME"] = str(project / "train.py")

    says(run(environment, project, *words.split()), 2 if words == "server logs" else 125, str(project / "train.py"))


def test_a_home_of_nobody(environment: dict[str, str], project: Path) -> None:
    says(run(environment | {"DSTACK_HOME": "~nobody-has-this-name/x"}, project, "config"), 2, "home folder")


def test_a_folder_that_was_removed(environment: dict[str, str], folder: Path) -> None:
    gone = folder / "gone"
    for words in ("init", "validate", "run train"):
        gone.mkdir()
        script = f'rmdir {gone}; exec "$@"'
        done = run_in(environment, gone, ["sh", "-c", script, "sh", *command(*words.split())])
        says(done, 2, "the current folder was removed")
    gone.mkdir()
    fine = run_in(environment, gone, ["sh", "-c", script, "sh", *command("runs")])
    assert fine.returncode == 0, fine.stderr


def run_in(environment: dict[str, str], cwd: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60)


def test_a_download_to_a_file(cli: Cli, state: State, project: Path) -> None:
    state.artifacts.append(ArtifactView(job=JOB, workflow="train", path="a", size=0, mode=0o644, sha256=""))

    for target in ("train.py", "train.py/below"):
        done = cli("artifacts", "download", "brave", "-o", target)
        assert done.returncode == 2
        assert f"{target} can't be a folder: a file is in the way".encode() in done.stderr
        assert b"choose another -o DIR" in done.stderr
    assert (project / "train.py").read_text() == "print('hello')\n"


def test_a_download_to_a_full_disk_names_the_file(cli: Cli, state: State, project: Path, folder: Path) -> None:
    data = b"x" * 100
    digest = hashlib.sha256(data).hexdigest()
    state.artifacts.append(ArtifactView(job=JOB, workflow="train", path="a", size=100, mode=0o644, sha256=digest))
    state.files[JOB, "a"] = data
    download = command("artifacts", "download", JOB, "-o", "o")
    limited = ["sh", "-c", 'ulimit -f 0; trap "" XFSZ; exec "$@"', "sh", *download]

    done = run_in(
        {"PATH": os.environ["PATH"], "DSTACK_SERVER_URL": str(folder / "s"), "DSTACK_HOME": str(folder / "home")},
        project,
        limited,
    )

    says(done, 125, "o/.dstack-", "can't be used: file too large")


@pytest.mark.parametrize("words", ["runs", "runs --json", "--version", "--help", "validate", "logs brave", "run -h"])
def test_stdout_on_a_full_disk(environment: dict[str, str], project: Path, words: str) -> None:
    with open("/dev/full", "wb") as full:
        done = run(environment, project, *words.split(), stdout=full.fileno())

    assert done.returncode == 125, done.stderr
    assert "standard output can't be used: no space left on device" in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_run_whose_output_is_on_a_full_disk_continues(environment: dict[str, str], project: Path) -> None:
    for options in ([], ["--json"], ["-q"], ["-d"]):
        with open("/dev/full", "wb") as full:
            done = run(environment, project, "run", "train", *options, stdout=full.fileno())

        assert done.returncode == 130, done.stderr
        assert "no space left on device; brave-otter-7 keeps running: follow it with `dstack logs -f" in done.stderr


def test_stderr_on_a_full_disk_changes_nothing_else(environment: dict[str, str], project: Path) -> None:
    with open("/dev/full", "wb") as full:
        good = run(environment, project, "validate", stderr=full.fileno())
        bad = run(environment, project, "logs", "nope", stderr=full.fileno())

    assert (good.returncode, good.stdout) == (0, "valid: 2 workflows (prepare, train)\n")
    assert bad.returncode == 2


def test_an_open_file_on_a_full_disk_is_named() -> None:
    with (
        pytest.raises(FileError, match="results/a can't be used: no space left on device"),
        plain_errors(),
        naming(Path("results/a")),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.mkdir(), "is not a file"),
        (os.mkfifo, "is not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is a link that leads to no file"),
        (lambda path: path.symlink_to(path.name), "is a link that leads to no file"),
        (lambda path: path.symlink_to("gone"), "is a link that leads to no file"),
    ],
)
@pytest.mark.parametrize("name", ["workflows.yaml", "configs.yml"])
def test_what_is_no_file_is_not_taken_for_missing(
    environment: dict[str, str], project: Path, name: str, make: Callable[[Path], object], what: str
) -> None:
    path = project / ".dstack" / name
    path.unlink(missing_ok=True)
    make(path)

    says(run(environment, project, "validate"), 2, f"{path} {what}")
