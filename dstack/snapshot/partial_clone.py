"""Partial clones (git-clone, --filter): fetches what the clone lacks, without adding to the user's objects."""

from __future__ import annotations

from pathlib import Path

from dstack.errors import UsageError
from dstack.model.code.snapshot import Snapshot
from dstack.plumbing.git import Git, GitError, quoted
from dstack.plumbing.packs import walking
from dstack.snapshot.worktree import Worktree

ROUNDS = 100
"""The most fetches. A clone without trees learns what a folder contains only after fetching the folder."""


def fetch_missing(worktree: Worktree, snapshot: Snapshot, scratch: Path) -> None:
    """Fetch the missing objects of the snapshot's history into the bare repository `scratch`, with the user's own
    access to the remote. Raises UsageError if that fails."""
    git = Git.at(worktree.root)
    git.environment["GIT_OBJECT_DIRECTORY"] = str(scratch / "objects")
    git.environment["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = quoted(worktree.objects)
    options = ("--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none")
    for _ in range(ROUNDS):
        wanted = _missing(Git.within(scratch), snapshot)
        if not wanted:
            return
        try:
            git.run(
                *("-c", "fetch.negotiationAlgorithm=noop", "fetch", "-q", *options, "--stdin", worktree.promisor or ""),
                stdin="".join(f"{oid}\n" for oid in wanted).encode(),
            )
        except GitError as error:
            raise UsageError(
                f"this is a partial clone, and what it lacks can't be fetched from '{worktree.promisor}': "
                f"{error.detail}",
                hint="fetch it yourself: git archive HEAD > /dev/null",
            ) from error
    raise UsageError(f"the remote '{worktree.promisor}' does not send all objects of {snapshot.commit}")


def _missing(git: Git, snapshot: Snapshot) -> list[str]:
    walker, options = walking(git, snapshot)
    lines = walker.run("rev-list", "--objects", *options, "--missing=print", snapshot.commit or "").decode(
        errors="replace"
    )
    return [line[1:] for line in lines.splitlines() if line.startswith("?")]
