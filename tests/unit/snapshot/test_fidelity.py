"""What you have is what runs: the job's tree equals the user's, and git gives the same answers in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import CASES, forget_intended, intended_beside_unmerged, lfs, merge_under_way, write


def root_of(project: Path) -> Path:
    found = git(project, "rev-parse", "--show-toplevel", ok=False).decode().rstrip("\n")
    return Path(found) if found else project


def state(root: Path) -> dict[str, bytes]:
    """Return the content of `.git`, which a snapshot must not touch."""
    if not (root / ".git").exists():
        return {}
    folder = Path(git(root, "rev-parse", "--absolute-git-dir").decode().rstrip("\n"))
    common = (folder / git(root, "rev-parse", "--git-common-dir").decode().rstrip("\n")).resolve()
    if not common.exists() or common == folder.parent:
        common = folder
    return {str(path): path.read_bytes() for at in {folder, common} for path in sorted(at.rglob("*")) if path.is_file()}


QUESTIONS = (
    ("rev-parse", "HEAD"),
    ("rev-parse", "--abbrev-ref", "HEAD"),
    ("log", "-1"),
    ("status", "--porcelain", "-z"),
    ("status", "--porcelain=2"),
    ("status", "--short"),
    ("diff", "--binary"),
    ("diff", "--submodule=diff"),
    ("diff", "--cached"),
    ("ls-files", "-s"),
)


def test_a_large_file_that_was_edited(tmp_path: Path) -> None:
    """A job has no Git LFS, so `git diff` shows the bytes of such a file instead of two pointers."""
    root = lfs(tmp_path / "project")
    write(root / "here.big", b"edited" * 20_000)
    write(root / "far.big", b"edited, too" * 20_000)
    expected = {path: about for path, about in manifest(root).items() if b"ignored" not in path}
    before = state(root)
    road = Road(tmp_path / "road")

    tree = road.launch(road.submit(root))

    assert state(root) == before
    assert manifest(tree) == expected
    for question in (
        ("status", "--porcelain", "-z"),
        ("diff", "--name-only"),
        ("diff", "--cached"),
        ("ls-files", "-s"),
    ):
        assert road.in_job(tree, *question) == git(root, *question), question


@pytest.mark.parametrize("name", CASES)
def test_the_job_has_the_users_tree(name: str, tmp_path: Path) -> None:
    project = CASES[name](tmp_path / "project")
    root = root_of(project)
    expected = {path: about for path, about in manifest(root).items() if b"ignored" not in path}
    before = state(root)
    road = Road(tmp_path / "road")

    snapshot = road.submit(project)
    tree = road.launch(snapshot)

    assert state(root) == before
    assert manifest(tree) == expected
    assert root / snapshot.project == project
    if snapshot.git:
        forget_intended(root)
        for question in QUESTIONS:
            assert road.in_job(tree, *question, ok=False) == git(root, *question, ok=False), question


def test_intended_paths_are_untracked_beside_unmerged_ones(tmp_path: Path) -> None:
    road = Road(tmp_path / "road")
    root = intended_beside_unmerged(tmp_path / "project")

    tree = road.launch(road.submit(root))

    status = road.in_job(tree, "status", "--porcelain").decode().splitlines()
    assert status == ["D  lib/a.py", "UU train.py", "?? empty.py", "?? later.py", "?? lib/a.py"]


def test_an_unmerged_path_may_be_left_out(tmp_path: Path) -> None:
    """git refuses to flag an unmerged path."""
    road = Road(tmp_path / "road")
    root = merge_under_way(tmp_path / "project")
    write(root / ".dstackignore", "train.py\n")

    tree = road.launch(road.submit(root))

    assert not (tree / "train.py").exists()
    assert b"train.py" in road.in_job(tree, "status", "--porcelain")
