"""A job starts from a tree with unmerged paths beside files added with `git add -N`, however the tree got there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.snapshot.shipping import Road, git, manifest
from tests.unit.snapshot.trees import commit, forget_intended, start, write

WAYS: dict[str, Callable[[Path], object]] = {
    "merge": lambda root: git(root, "merge", "other", ok=False),
    "merge --squash": lambda root: git(root, "merge", "--squash", "other", ok=False),
    "pull": lambda root: git(root, "pull", "--no-rebase", "-q", ".", "other", ok=False),
    "rebase": lambda root: git(root, "rebase", "other", ok=False),
    "rebase --autostash": lambda root: autostash(root),
    "cherry-pick": lambda root: git(root, "cherry-pick", "other", ok=False),
    "revert": lambda root: git(root, "revert", "--no-edit", "HEAD~1", ok=False),
    "stash pop": lambda root: stash(root, "pop"),
    "stash apply --index": lambda root: stash(root, "apply", "--index"),
    "am": lambda root: mailed(root, "am", "-3"),
    "apply": lambda root: mailed(root, "apply", "-3"),
    "checkout -m": lambda root: (write(root / "train.py", "mine\n"), git(root, "checkout", "-m", "other", ok=False)),
    "checkout --merge of a path": lambda root: (git(root, "merge", "other", ok=False), again(root)),
}


def stash(root: Path, *words: str) -> None:
    write(root / "train.py", "stashed\n")
    git(root, "stash")
    write(root / "train.py", "later\n")
    commit(root)
    git(root, "stash", *words, ok=False)


def autostash(root: Path) -> None:
    git(root, "branch", "-q", "ahead")
    git(root, "checkout", "-q", "ahead")
    write(root / "train.py", "ahead\n")
    commit(root)
    git(root, "checkout", "-q", "main")
    write(root / "train.py", "not committed\n")
    git(root, "rebase", "--autostash", "ahead", ok=False)


def mailed(root: Path, *words: str) -> None:
    patch = root.parent / "a.patch"
    patch.write_bytes(git(root, "format-patch", "--stdout", "main..other"))
    git(root, *words, str(patch), ok=False)


def again(root: Path) -> None:
    write(root / "train.py", "resolved\n")
    git(root, "add", "train.py")
    git(root, "checkout", "--merge", "--", "train.py")


@pytest.mark.parametrize("way", WAYS)
def test_a_job_starts_with_unmerged_and_intended_paths(way: str, tmp_path: Path) -> None:
    # Given a tree with a conflict, a file that only one side has, and files that are to be added later
    root = start(tmp_path / "project")
    git(root, "checkout", "-q", "-b", "other")
    write(root / "train.py", "theirs\n")
    write(root / "theirs.py", "new\n")
    commit(root)
    git(root, "checkout", "-q", "main")
    for text in ("ours\n", "ours again\n"):
        write(root / "train.py", text)
        commit(root)
    WAYS[way](root)
    assert git(root, "ls-files", "--unmerged"), way
    write(root / "later.py", "later\n")
    write(root / "empty.py", "")
    git(root, "add", "-N", "later.py", "empty.py")
    road = Road(tmp_path / "road")

    # When a job starts from it
    tree = road.launch(road.submit(root))

    # Then it has the same files, and git says the same, except that intended files are untracked there
    assert manifest(tree) == {path: about for path, about in manifest(root).items() if b"ignored" not in path}
    forget_intended(root)
    for question in (("status", "--porcelain"), ("ls-files", "--stage"), ("diff",), ("diff", "--cached")):
        assert road.in_job(tree, *question) == git(root, *question), question
