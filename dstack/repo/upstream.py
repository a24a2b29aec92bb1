"""What a branch is compared with: `git status` says how far it is ahead of that, or behind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dstack.repo.git import Git, GitError
from dstack.repo.worktree import Worktree

MOST = 100
"""Commits on both sides that go with a snapshot: of a branch that is further away, nothing is said."""
LARGEST = 10**6
"""Bytes that the files of these commits may have, as git stores them."""


@dataclass(frozen=True)
class Upstream:
    """The branch that this one follows. `commit` is None where it is gone. `between` are the commits that only one of
    the two has, and those where they part; empty where both are at the same one."""

    ref: str
    commit: str | None = None
    between: frozenset[str] = frozenset()


def find(worktree: Worktree, scratch: Path) -> Upstream | None:
    """The upstream of the branch that is checked out, unless there is none or it is too far to be taken along. Its
    commits and their files are asked for in `scratch`, which borrows the repository's objects."""
    if worktree.commit is None or worktree.branch is None:
        return None
    git, own = worktree.git(), f"refs/heads/{worktree.branch}"
    ref = os.fsdecode(git.run("for-each-ref", "--format=%(upstream)", own)).strip("\n")
    if ref in ("", own):
        return None
    theirs = git.run("rev-parse", "-q", "--verify", f"{ref}^{{commit}}", accept=(0, 1, 128)).decode().strip()
    if theirs in ("", worktree.commit):
        return Upstream(ref, theirs or None)
    between = _between(git, worktree.commit, theirs)
    if not between or not _are_small(Git.within(scratch), worktree.commit, between):
        return None
    return Upstream(ref, theirs, between)


def _between(git: Git, ours: str, theirs: str) -> frozenset[str]:
    """Empty where it is too much, or where these commits alone would tell something else."""
    options = ("--left-right", "--boundary", "--parents", f"--max-count={MOST + 1}")
    lines = [line.split() for line in git.run("rev-list", *options, f"{ours}...{theirs}").decode().splitlines()]
    sides = {oid[1:]: oid[0] for oid, *_ in lines}
    ahead, behind = ({oid for oid, side in sides.items() if side == mark} for mark in "<>")
    parents = {oid[1:]: rest for oid, *rest in lines}
    left, right = _reach(parents, ours), _reach(parents, theirs)
    tells_the_same = (left - right, right - left) == (ahead, behind)
    return frozenset(sides) if tells_the_same and len(ahead | behind) <= MOST else frozenset()


def _reach(parents: Mapping[str, list[str]], start: str) -> set[str]:
    """The commits that are reached where one is an end unless all of its parents are there."""
    seen: set[str] = set()
    left = [start]
    while left:
        oid = left.pop()
        seen.add(oid)
        known = parents.get(oid, [])
        if all(parent in parents for parent in known):
            left += [parent for parent in known if parent not in seen]
    return seen


def _are_small(scratch: Git, commit: str, others: Iterable[str]) -> bool:
    trees = "".join(f"{oid}^{{tree}}\n" for oid in others)
    try:
        listed = scratch.run("rev-list", "--objects", "--stdin", stdin=f"{trees}^{commit}^{{tree}}\n".encode())
    except GitError:
        return False  # a partial clone lacks some
    asked = b"".join(line[: len(commit)] + b"\n" for line in listed.splitlines())
    sizes = scratch.run("cat-file", "--batch-check=%(objectsize:disk)", stdin=asked).split(b"\n")[:-1]
    return all(size.isdigit() for size in sizes) and sum(map(int, sizes)) <= LARGEST
