"""A run is recorded completely: its patch can be printed, and it can be repeated from anywhere."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.environment.product import Home
from tests.environment.sshd import free_port

from .project import git, project

Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def lines_of_job(log: str) -> list[str]:
    return [line.partition("| ")[2] for line in log.splitlines() if line.startswith("job")]


def test_the_patch_and_the_same_again(cli: Cli, runner: str, tmp_path: Path, python_image: str) -> None:
    workflows = f"""
    workflows:
      - name: before
        image: {python_image}
        commands: ["echo $word > made"]
        artifacts: [made]
        depends-on: {{repo: {{include: [kept.py]}}}}
      - name: job
        image: {python_image}
        commands: ["cat kept.py new made", "echo $own", "git status --porcelain"]
        depends-on: {{workflows: [before]}}
    """
    root = project(tmp_path / "project", workflows, "configs:\n  global: {word: one}\n  job: {own: mine}\n")
    (root / "kept.py").write_text("at the commit\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "kept")
    (root / "kept.py").write_text("changed\n")
    (root / "new").write_bytes(b"\0new\n")
    first = cli("run", "job", "--name", "first", "-e", "E=1", cwd=root)
    assert first.returncode == 0, first.stderr

    patch = cli("runs", "first", "--diff", cwd=tmp_path)
    assert patch.returncode == 0, patch.stderr
    git(tmp_path, "clone", "-q", str(root), "clone")
    (tmp_path / "patch").write_text(patch.stdout)
    git(tmp_path / "clone", "apply", str(tmp_path / "patch"))
    assert (tmp_path / "clone/kept.py").read_text() == "changed\n"
    assert (tmp_path / "clone/new").read_bytes() == b"\0new\n"

    subprocess.run(["rm", "-rf", root], check=True)
    again = cli("run", "--from", "first", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert lines_of_job(again.stdout) == lines_of_job(first.stdout) != []
    other = cli("run", "--from", "first", "--own", "yours", "--word", "two", cwd=tmp_path)
    assert other.returncode == 0, other.stderr
    assert "two" in other.stdout
    assert "yours" in other.stdout
    assert "before: cached" in again.stderr
    assert "before: cached" not in other.stderr
    planned = cli("run", "--from", "first", "--dry-run", cwd=tmp_path)
    assert "kept.py" in planned.stdout
    for words, said in (
        (("--from", "first", "--nope", "1"), "no variable 'nope'"),
        (("--from", "nothing"), "nothing"),
        (("--from", "first", "job"), "unexpected word 'job'"),
    ):
        refused = cli("run", *words, cwd=tmp_path)
        assert refused.returncode == 2, refused.stderr
        assert said in refused.stderr


@pytest.fixture
def another() -> Iterator[Home]:
    """A client on another machine, without git."""
    home = Home()
    home.environment["PATH"] = "/nonexistent"
    try:
        yield home
    finally:
        home.close()


def test_from_another_machine_on_another_day(
    cli: Cli, runner: str, another: Home, tmp_path: Path, python_image: str
) -> None:
    workflows = f"""
    workflows:
      - name: job
        image: {python_image}
        commands: ["cat kept.py", "echo $word", "git status --porcelain", "git log --format=%s"]
        fetch-depth: 2
    """
    root = project(tmp_path / "project", workflows, "configs:\n  global: {word: one}\n")
    (root / "kept.py").write_text("committed\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "second")
    (root / "kept.py").write_text("as it was\n")
    first = cli("run", "job", "--name", "first", cwd=root)
    assert first.stdout == "as it was\none\n M kept.py\nsecond\nfirst\n", first.stderr
    patch = cli("runs", "first", "--diff", cwd=root).stdout
    subprocess.run(["rm", "-rf", root], check=True)
    assert cli("server", "stop").returncode == 0
    port = str(free_port())
    assert cli("server", "start", "--port", port, env={"DSTACK_TOKEN": "t"}).returncode == 0

    configured = another.run("config", "--url", f"http://127.0.0.1:{port}", "--token", "t")
    assert configured.returncode == 0, configured.stderr
    again = another.run("run", "--from", "first")
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout
    other = another.run("run", "--from", "first", "--word", "two")
    assert other.stdout == first.stdout.replace("one", "two")
    assert another.run("runs", "first", "--diff").stdout == patch != ""
