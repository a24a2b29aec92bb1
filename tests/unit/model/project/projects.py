"""Projects for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from dstack.errors import ProjectError
from dstack.model.project.nodes import SourceFile
from dstack.model.project.project import Project, parse

TESTS = Path(__file__).resolve().parents[3]
ROOT = TESTS.parent
GPT2 = TESTS / "data" / "gpt2" / ".dstack"
STARTER = ROOT / "templates" / "init" / ".dstack"


def read(folder: Path) -> Project:
    """Read the project in the folder."""
    sources = [
        SourceFile(f".dstack/{name}", (folder / name).read_text(encoding="utf-8"))
        for name in ("workflows.yaml", "configs.yaml")
    ]
    return parse(*sources)


def project(workflows: str, configs: str | None = None) -> Project:
    """Read a project with these texts in its files."""
    return parse(
        SourceFile(".dstack/workflows.yaml", workflows),
        None if configs is None else SourceFile(".dstack/configs.yaml", configs),
    )


def problems(workflows: str, configs: str | None = None) -> list[str]:
    """Return the errors in these texts. The path of the first file is shortened to `w`, of the second to `c`."""
    with pytest.raises(ProjectError) as caught:
        project(workflows, configs)
    return [
        problem.replace(".dstack/workflows.yaml:", "w:").replace(".dstack/configs.yaml:", "c:")
        for problem in caught.value.problems
    ]
