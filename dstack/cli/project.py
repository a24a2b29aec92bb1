"""Finds and reads the project of the current folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.cli import connect
from dstack.errors import UsageError
from dstack.model.project.workflow import Values, Workflow

if TYPE_CHECKING:
    from dstack.model.project.project import Project

FOLDER = ".dstack"
WORKFLOWS = ("workflows.yaml", "workflows.yml")
CONFIGS = ("configs.yaml", "configs.yml", "config.yaml", "config.yml")


@dataclass(frozen=True)
class LoadedProject:
    """A project on disk. `root` is the folder that holds `.dstack`."""

    root: Path
    project: Project

    @property
    def workflows(self) -> Mapping[str, Workflow]:
        """The workflows by name, in the order of the file."""
        return self.project.workflows

    def values(self, workflow: str) -> Values:
        """Return a workflow's variables and their defaults, its own first."""
        own = self.project.own.get(workflow, {})
        return {**own, **{name: value for name, value in self.project.shared.items() if name not in own}}


def find_root(start: Path) -> Path:
    """Return the nearest folder, from `start` upward, that holds a project. Raises UsageError if there is none."""
    for folder in (start, *start.parents):
        if any((folder / FOLDER / name).is_file() for name in WORKFLOWS):
            return folder
    raise UsageError(
        f"no {FOLDER}/{WORKFLOWS[0]} in {start} or a folder above it",
        hint="create a starter project with `dstack init`",
    )


def load(start: Path | None = None) -> LoadedProject:
    """Read the project's files and print its warnings. Raises ProjectError with all problems."""
    from dstack.model.project.nodes import SourceFile
    from dstack.model.project.project import parse

    root = find_root(start or Path.cwd())

    def source(names: tuple[str, ...]) -> SourceFile | None:
        there = [name for name in names if (root / FOLDER / name).is_file()]
        if len(there) > 1:
            raise UsageError(
                f"both {FOLDER}/{there[0]} and {FOLDER}/{there[1]} exist; only one is allowed",
                hint=f"move everything into {FOLDER}/{there[0]} and remove the other file",
            )
        return SourceFile(f"{FOLDER}/{there[0]}", _text(root / FOLDER / there[0])) if there else None

    workflows = source(WORKFLOWS)
    if workflows is None:
        raise UsageError(f"{root / FOLDER / WORKFLOWS[0]} was removed while it was read")
    project = parse(workflows, source(CONFIGS))
    for warning in project.warnings:
        connect.warn(f"warning: {warning}")
    return LoadedProject(root, project)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UsageError(f"{FOLDER}/{path.name}:{line}: the file is not UTF-8", hint="save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{FOLDER}/{path.name} can't be read: {error.strerror}") from error
