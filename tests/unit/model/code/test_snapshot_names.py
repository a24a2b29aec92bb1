"""Names in a snapshot become paths on hosts: none may lead out of the job's folder."""

from __future__ import annotations

import pytest

from dstack.model.code.snapshot import Snapshot, trouble


def snapshot(project: str = "", branch: str | None = None) -> Snapshot:
    return Snapshot(repo="r", tree="0" * 40, project=project, branch=branch)


@pytest.mark.parametrize(
    "project", ["..", "../x", "a/../../x", "/etc", "a//b", "a/", "./a", ".", ".git", "a/.git/hooks", "a\0b"]
)
def test_a_project_outside_of_the_repository(project: str) -> None:
    assert "is not a path inside the repository" in str(trouble(snapshot(project)))


@pytest.mark.parametrize("project", ["", "a", "a/b c", "..a/b..", "-x", "\udcff", "a\nb", ".gitlab"])
def test_any_folder_inside(project: str) -> None:
    assert trouble(snapshot(project)) is None


@pytest.mark.parametrize("branch", ["", "-x", "/x", "a..b", "x\nref: y", "a b", "a\x7f", "../../x", "a:b", "x" * 1001])
def test_a_branch_that_is_more_than_a_name(branch: str) -> None:
    assert "is not a valid name" in str(trouble(snapshot(branch=branch)))


@pytest.mark.parametrize("branch", [None, "main", "ann/fix-1", "v1.2", "gr\u00fc\u00dfe", "a@b"])
def test_branches_as_git_makes_them(branch: str | None) -> None:
    assert trouble(snapshot(branch=branch)) is None
