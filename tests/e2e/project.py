"""Small projects for end-to-end tests."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    """Run `git ARGUMENTS` in a folder; return its output."""
    identity = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def project(folder: Path, workflows: str, configs: str | None = None, *, commit: bool = True) -> Path:
    """Make a project with these files in its own git repository; `commit=False`: without git."""
    (folder / ".dstack").mkdir(parents=True)
    (folder / ".dstack" / "workflows.yaml").write_text(textwrap.dedent(workflows))
    if configs is not None:
        (folder / ".dstack" / "configs.yaml").write_text(textwrap.dedent(configs))
    if commit:
        git(folder, "init", "-q", "-b", "main")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "first")
    return folder


def single(folder: Path, image: str, *commands: str, more: str = "") -> Path:
    """Make a project with one workflow, `job`, with these commands. `more` are further lines of it."""
    lines = ["workflows:", "  - name: job", f"    image: {image}", "    commands:"]
    lines += [f"      - |\n{textwrap.indent(command, ' ' * 10)}" for command in commands]
    lines += textwrap.indent(textwrap.dedent(more), " " * 4).splitlines()
    return project(folder, "\n".join(lines) + "\n")
