"""The user's tree arrives in a container over real SSH, and git gives the same answers there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dstack.model.paths import ServerLayout
from tests.environment.account import Account
from tests.environment.product import Home

from .project import git, single

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

FILES = "find . -path ./.git -prune -o"
LISTED = f"{FILES} ! -type d -exec stat -c '%A %N' {{}} + | sort; {FILES} -type f -exec sha256sum {{}} + | sort"
ASKED = "git rev-parse HEAD; git log -1 --format='%an %s'; git status --porcelain; git diff; git branch"


@pytest.fixture
def edited(tmp_path: Path, python_image: str) -> Path:
    """A project with every kind of change."""
    root = single(tmp_path / "project", python_image, LISTED, "echo ---", ASKED)
    (root / "kept.py").write_text("".join(f"line {number}\n" for number in range(100)))
    (root / "gone.py").write_text("gone\n")
    (root / "tool").write_text("#!/bin/sh\n")
    (root / ".gitignore").write_text("*.pt\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "it's all there")
    (root / "kept.py").write_text("changed\n")
    (root / "gone.py").unlink()
    (root / "tool").chmod(0o755)
    (root / "weights.pt").write_bytes(b"0" * 1000)
    (root / "new file").write_bytes(bytes(range(256)))
    (root / "empty").touch()
    (root / "dangling").symlink_to("nowhere")
    return root


def told(root: Path) -> str:
    """Return what the job's commands print in the user's own tree."""
    script = f"umask 022; {LISTED}\necho ---\n{ASKED}"
    done = subprocess.run(["bash", "-ec", script], cwd=root, capture_output=True, text=True, check=True)
    return "".join(line for line in done.stdout.splitlines(keepends=True) if "weights.pt" not in line)


def test_what_you_have_is_what_runs(cli: Cli, runner: str, edited: Path) -> None:
    done = cli("run", "job", cwd=edited)
    assert done.returncode == 0, done.stderr
    assert done.stdout == told(edited)

    (edited / "kept.py").write_text("changed again\n")
    done = cli("run", "job", cwd=edited)
    assert done.returncode == 0, done.stderr
    assert done.stdout == told(edited)


def test_a_folder_without_git(cli: Cli, runner: str, tmp_path: Path, python_image: str) -> None:
    root = single(tmp_path / "project", python_image, LISTED, "test ! -e .git")
    subprocess.run(["rm", "-rf", root / ".git"], check=True)
    (root / "tool").write_text("x")
    (root / "tool").chmod(0o755)
    done = cli("run", "job", cwd=root)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(["bash", "-ec", LISTED], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == listed.stdout


def test_commands_start_in_the_projects_folder(cli: Cli, runner: str, tmp_path: Path, python_image: str) -> None:
    root = single(tmp_path / "outer" / "inner", python_image, "pwd", "cat ../beside")
    subprocess.run(["rm", "-rf", root / ".git"], check=True)
    git(root.parent, "init", "-q")
    (root.parent / "beside").write_text("beside\n")
    (root / "src").mkdir()
    done = cli("run", "job", cwd=root / "src", env={**os.environ, "GIT_DIR": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "/workflow/inner\nbeside\n"


def garble(mirrors: Path) -> None:
    """Change bytes in the middle of every pack, as a failing disk does: the file looks the same."""
    packs = list(mirrors.glob("*.git/objects/pack/*.pack"))
    assert packs
    for pack in packs:
        before, content = pack.stat(), bytearray(pack.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 40] = bytes(40)
        pack.chmod(0o600)
        with pack.open("r+b") as file:
            file.write(content)
        pack.chmod(before.st_mode)
        os.utime(pack, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_a_disk_forgot(
    cli: Cli, runner: str, user: Account, dstack_home: Home, tmp_path: Path, busybox: str
) -> None:
    root = single(tmp_path / "project", busybox, "sha256sum data.bin")
    (root / "data.bin").write_bytes(os.urandom(100_000))
    expected = cli("run", "job", cwd=root)
    assert expected.returncode == 0, expected.stderr

    garble(next(user.home.glob(".dstack-host/*/*/mirrors")))
    again = cli("run", "job", cwd=root)
    assert again.returncode == 0, again.stderr
    assert again.stdout == expected.stdout, "the machine's copy is mended by itself"

    (root / "data.bin").write_bytes(os.urandom(100_000))
    cli("runners", "drain", runner)
    queued = cli("run", "job", "-d", "--wait-for-runner", "--name", "waiting", cwd=root)
    assert queued.returncode == 0, queued.stderr
    garble(ServerLayout(dstack_home.dstack).mirrors)
    cli("runners", "resume", runner)
    waited = cli("wait", "waiting", cwd=root)
    assert waited.returncode == 125, waited.stderr
    assert "run it again: the code will be sent again" in waited.stderr
    assert cli("run", "job", cwd=root).returncode == 0
