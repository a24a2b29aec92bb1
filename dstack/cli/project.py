"""Finds and reads the project of the current folder."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.cli import connect
from dstack.errors import ErrorCode, UsageError, reason
from dstack.model.project.files import CONFIGS, FOLDER, WORKFLOWS, only
from dstack.model.project.workflow import Values

if TYPE_CHECKING:
    from dstack.model.project.nodes import SourceFile
    from dstack.model.project.project import Project


def find_root() -> Path:
    """Return the nearest folder, from the current one upward, that holds `.dstack`. Raises UsageError if none does."""
    try:
        start = Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder was removed", hint="cd ~", code=ErrorCode.FILE) from error
    for folder in (start, *start.parents):
        if any(_is_file(folder / FOLDER / name) for name in WORKFLOWS):
            return folder
    raise UsageError(
        f"no {FOLDER}/{WORKFLOWS[0]} in {start} or a folder above it",
        hint="create a starter project with `dstack init`",
    )


def warn(warning: str) -> None:
    """Print a warning about the project."""
    connect.warn(f"warning: {warning}")


def load(say: Callable[[str], None] = warn) -> Project:
    """Read the project's files and `say` its warnings. Raises ProjectError with all problems."""
    from dstack.model.project.project import parse

    folder = find_root() / FOLDER
    workflows = _source(folder, WORKFLOWS)
    if workflows is None:
        raise UsageError(f"{folder / WORKFLOWS[0]} was removed while it was read")
    project = parse(workflows, _source(folder, CONFIGS))
    for warning in project.warnings:
        say(warning)
    return project


def values(project: Project, workflow: str) -> Values:
    """Return a workflow's variables and their defaults, its own first."""
    own = project.own.get(workflow, {})
    return own | {name: value for name, value in project.shared.items() if name not in own}


def _source(folder: Path, names: tuple[str, ...]) -> SourceFile | None:
    from dstack.model.project.nodes import SourceFile

    path = only(names, [name for name in names if _is_file(folder / name)])
    return SourceFile(path, _text(folder.parent / path)) if path else None


def _is_file(path: Path) -> bool:
    """Whether the file exists. Raises UsageError if that can't be seen, and for what is there but no file."""
    try:
        found = path.is_file()
    except OSError as error:
        hint = f"ls -ld {shlex.quote(str(path.parent))}"
        raise UsageError(f"{path} can't be read: {reason(error)}", hint=hint) from error
    if not found and os.path.lexists(path):
        what = "is a link that leads to no file" if path.is_symlink() else "is not a file"
        raise UsageError(f"{path} {what}", hint=f"ls -ld {shlex.quote(str(path))}", code=ErrorCode.FILE)
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{FOLDER}/{path.name}:{line}: the file is not UTF-8", hint="save it as UTF-8") from error
    except OSError as error:
        hint = f"ls -ld {shlex.quote(str(path))}"
        raise UsageError(f"{FOLDER}/{path.name} can't be read: {reason(error)}", hint=hint) from error
