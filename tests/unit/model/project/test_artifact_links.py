"""An artifact that a link of the project is in the way of is refused before anything is sent."""

from __future__ import annotations

import pytest

from dstack.errors import UsageError
from dstack.model.project.artifact_links import inside, refuse_links
from dstack.model.project.workflow import Artifact, DependsOn, Workflow

LINKS = {"ckpt", "data/latest", "out"}


def made(name: str, *artifacts: str, after: tuple[str, ...] = ()) -> Workflow:
    paths = tuple(Artifact(path=path, optional=True) for path in artifacts)
    return Workflow(name=name, image="i", commands=("c",), artifacts=paths, depends_on=DependsOn(workflows=after))


@pytest.mark.parametrize(
    ("artifact", "words"),
    [
        ("ckpt", "is 'ckpt'"),
        ("ckpt/best/model", "lies behind 'ckpt'"),
        ("data/latest/x", "lies behind 'data/latest'"),
        ("out", "is 'out'"),
    ],
)
def test_an_artifact_at_or_behind_a_link(artifact: str, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_links(made("train", "fine", artifact), [made("other", "elsewhere")], LINKS)

    assert refused.value.exit_code == 2
    assert refused.value.message.startswith(f"train: the artifact '{artifact}' {words}, which is a link in the project")


@pytest.mark.parametrize("artifact", ["data", "data/late", "ckpts/x", "outer", "data/other/latest", "new"])
def test_an_artifact_that_no_link_is_in_the_way_of(artifact: str) -> None:
    refuse_links(made("train", artifact), [], LINKS)


@pytest.mark.parametrize("before", ["out", "out/deep/x"])
def test_a_folder_of_a_dependency_replaces_the_link(before: str) -> None:
    refuse_links(made("train", "out/new"), [made("before", before)], LINKS)


def test_nobody_knows_what_a_tag_leads_to() -> None:
    refuse_links(made("train", "out/new", after=(":best",)), [], LINKS)


def test_links_outside_of_the_project_do_not_count() -> None:
    assert inside(["out", "sub/out", "sub/deep/x", "subway"], "sub") == {"out", "deep/x"}
    assert inside(["out"], "") == {"out"}
