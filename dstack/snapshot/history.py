"""Decides how much history goes with a snapshot, and fetches what a partial clone (git-clone, --filter) lacks of it."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from dstack.errors import UsageError
from dstack.model.code.snapshot import Snapshot
from dstack.plumbing.git import Git, GitError, quoted
from dstack.plumbing.history import boundary, with_depths
from dstack.plumbing.packs import walking
from dstack.snapshot.worktree import Worktree

ROUNDS = 100
"""The most fetches. A clone without trees learns what a folder contains only after fetching the folder."""


def with_history(snapshot: Snapshot, worktree: Worktree | None, depths: set[int]) -> Snapshot:
    """Return the snapshot with as much history as the deepest of `depths` (in commits; 0: all) asks for."""
    if worktree is None or snapshot.commit is None or depths == {1}:
        return snapshot
    git, own = worktree.git(), worktree.common / "shallow"
    cut = set(own.read_text().split()) if own.is_file() else set()
    ends = {depth: boundary(git, cut, snapshot.commit, depth) for depth in depths}
    depth, shallow = with_depths(ends, depths)
    return replace(snapshot, depth=depth, shallow=shallow, ends=ends)


def fetch_missing(worktree: Worktree, snapshot: Snapshot, scratch: Path) -> None:
    """Fetch the missing objects of the snapshot's history into the bare repository `scratch`, with the user's own
    access to the remote. Raises UsageError if that fails."""
    git = Git.at(worktree.root, *worktree.harmless)
    git.environment["GIT_OBJECT_DIRECTORY"] = str(scratch / "objects")
    git.environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = quoted(worktree.objects)
    options = ("--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none")
    walker, walk = walking(Git.within(scratch), snapshot)
    for _ in range(ROUNDS):
        found = walker.run("rev-list", "--objects", *walk, "--missing=print", snapshot.commit or "").splitlines()
        wanted = b"".join(line[1:] + b"\n" for line in found if line.startswith(b"?"))
        if not wanted:
            return
        try:
            git.run(
                *("-c", "fetch.negotiationAlgorithm=noop", "fetch", "-q", *options, "--stdin", worktree.promisor or ""),
                stdin=wanted,
            )
        except GitError as error:
            raise UsageError(
                f"this is a partial clone, and what it lacks can't be fetched from '{worktree.promisor}': "
                f"{error.detail}",
                hint="fetch it yourself: git archive HEAD > /dev/null",
            ) from error
    raise UsageError(f"the remote '{worktree.promisor}' does not send all objects of {snapshot.commit}")
