"""Names that are not UTF-8 arrive unchanged, wherever they are allowed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from .project import git, single

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

LATIN = os.fsdecode(b"caf\xe9 \xff")


def test_branch_folder_and_file(cli: Cli, runner: str, tmp_path: Path, python_image: str) -> None:
    commands = ("pwd | od -An -c", "ls | od -An -c", "git branch --show-current | od -An -c", "git status --porcelain")
    root = single(tmp_path / LATIN / f"project {LATIN}", python_image, *commands)
    subprocess.run(["rm", "-rf", root / ".git"], check=True)
    git(root.parent, "init", "-q")
    (root / f"file {LATIN}").write_text("x\n")
    git(root.parent, "add", "-A")
    git(root.parent, "commit", "-qm", "all")
    branch = LATIN.replace(" ", "")
    git(root.parent, "checkout", "-q", "-b", branch)

    done = cli("run", "job", cwd=root)

    assert done.returncode == 0, done.stderr
    said = "".join(done.stdout.split())
    assert said.count("caf351377") + said.count("caf351377\\n") >= 1
    assert done.stdout.count("351") == 3, done.stdout
    assert not [line for line in done.stdout.splitlines() if line.startswith((" M", "??", " D"))]
    for words in (("runs",), ("runs", "--json"), ("jobs",), ("run", "job", "--dry-run"), ("run", "job", "--json")):
        answered = cli(*words, cwd=root)
        assert answered.returncode == 0, (words, answered.stderr)
    (first, *_) = json.loads(cli("runs", "--json", cwd=root).stdout)
    assert first["repo"]["branch"] == branch
    assert cli("runs", first["name"], cwd=root).returncode == 0
