"""What you have is what runs: the job's tree equals the user's, and git answers there as it does at home."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.repo.shipping import Road, git, manifest
from tests.unit.repo.trees import CASES


def root_of(project: Path) -> Path:
    found = git(project, "rev-parse", "--show-toplevel", ok=False).decode().rstrip("\n")
    return Path(found) if found else project


def state(root: Path) -> dict[str, bytes]:
    """All of a repository that a snapshot must not touch."""
    if not (root / ".git").exists():
        return {}
    folder = Path(git(root, "rev-parse", "--absolute-git-dir").decode().rstrip("\n"))
    common = (folder / git(root, "rev-parse", "--git-common-dir").decode().rstrip("\n")).resolve()
    if not common.exists() or common == folder.parent:
        common = folder
    return {str(path): path.read_bytes() for at in {folder, common} for path in sorted(at.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("name", CASES)
def test_the_job_has_the_users_tree(name: str, tmp_path: Path) -> None:
    project = CASES[name](tmp_path / "project")
    root = root_of(project)
    expected = {path: about for path, about in manifest(root).items() if b"ignored" not in path}
    before = state(root)
    road = Road(tmp_path / "road")

    snapshot = road.submit(project)
    tree = road.launch(snapshot)

    assert manifest(tree) == expected
    assert root / snapshot.project == project
    assert state(root) == before


OTHER_INDEX = {
    "edited_in_every_way",
    "file_mode_is_not_trusted_by_git",
    "auto_crlf",
    "lfs_like_filter",
    "attributes_gone_since",
    "flagged_in_the_index",
    "sparse",
    "partial_and_sparse_clone",
    "clone_without_trees",
    "split_index",
    "no_commit",
    "merge_under_way",
    "rebase_under_way",
    "submodules_and_nested",
}
"""What is staged, flagged or filtered at home lies in the index and the settings there, which do not travel."""


@pytest.mark.parametrize("name", sorted(CASES.keys() - OTHER_INDEX - {"no_git"}))
def test_git_answers_there_as_it_does_at_home(name: str, tmp_path: Path) -> None:
    project = CASES[name](tmp_path / "project")
    road = Road(tmp_path / "road")
    tree = road.launch(road.submit(project))
    for question in (
        ("rev-parse", "HEAD"),
        ("rev-parse", "--abbrev-ref", "HEAD"),
        ("log", "-1"),
        ("status", "--porcelain", "-z"),
        ("diff", "--binary"),
        ("diff", "--cached"),
    ):
        assert road.in_job(tree, *question) == git(root_of(project), *question), question
