"""Artifacts that could never be collected, because the project has a link at their paths."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from itertools import accumulate

from dstack.errors import UsageError
from dstack.model.project.workflow import Workflow
from dstack.model.text.tag import is_tag


def inside(paths: Iterable[str], project: str) -> frozenset[str]:
    """Return those of the paths, which are relative to the git root, that are in the project, relative to it."""
    prefix = f"{project}/" if project else ""
    return frozenset(path[len(prefix) :] for path in paths if path.startswith(prefix))


def refuse_links(workflow: Workflow, dependencies: Sequence[Workflow], links: Container[str]) -> None:
    """Raise UsageError if an artifact is or lies behind one of the project's links. The workflows' paths are expanded.
    A folder that a dependency makes there replaces the link, and nobody knows yet what a tag leads to."""
    if any(map(is_tag, workflow.needs.workflows)):
        return
    made = [artifact.path for each in dependencies for artifact in each.outputs]
    for artifact in workflow.outputs:
        parts = accumulate(artifact.path.split("/"), "{}/{}".format)
        link = next((path for path in parts if path in links), None)
        if link is None or any(overlap(link, path) for path in made):
            continue
        where = f"is '{link}'" if link == artifact.path else f"lies behind '{link}'"
        raise UsageError(
            f"{workflow.name}: the artifact '{artifact.path}' {where}, which is a link in the project, and links are "
            "not followed: it could not be collected",
            hint="name the folder that the link leads to, or replace the link with a folder",
        )


def overlap(one: str, other: str) -> bool:
    """Whether the paths are equal or one is below the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
