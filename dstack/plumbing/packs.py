"""Packs: the objects of a snapshot that one side lacks, as deltas against those it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dstack.model.code.snapshot import Snapshot
from dstack.plumbing.git import Git, write_file

# git uses at most as many delta bases as its window is long (git-pack-objects, --window).
BASES = 10
CUTS = "cuts"
"""The folder in a repository with one file per history: which commits have no parents there."""
LEFTOVERS = ("in-*", "out-*", "objects/pack/tmp_*", "objects/pack/.tmp-*", "*.new", "*/*.new", "objects/info/*.new")
"""What is unfinished in a repository of dstack's, or was left so by a killed process."""


def commit_of(name: str) -> str:
    """Return the object id in the name of a commit, tree or history."""
    return name.rpartition("-")[2]


def write_pack(git: Git, snapshot: Snapshot, known: Sequence[str], target: Path) -> Path:
    """Write the snapshot's objects into `target`, without those of `known`: names of commits, trees and histories that
    the reader has, whose objects may serve as delta bases. Return `target`."""
    wanted = [oid for oid in snapshot.objects if oid not in known]
    if snapshot.history and snapshot.history not in known:
        wanted = list(snapshot.objects)
    bases = list(dict.fromkeys(map(commit_of, known)))
    excluded = [f"^{oid}^{{tree}}" for oid in bases]
    if snapshot.history:
        # A reader with a full history, or one that ends at the same commits, has everything up to its own commit.
        ends = f"{snapshot.history.partition('-')[0]}-"
        excluded += [f"^{commit_of(name)}" for name in known if name.startswith(("full-", ends))]
    left_out = b"".join(b"-%s\n" % oid.encode() for oid in bases[:BASES])
    with target.open("wb") as file:
        git.run(
            *("pack-objects", "--stdout", "-q", "--delta-base-offset"),
            stdin=left_out + _objects(git, snapshot, wanted, excluded),
            stdout=file,
        )
    return target


def is_complete(git: Git, snapshot: Snapshot) -> bool:
    """Return whether every object of the snapshot is there."""
    with_history, options = walking(git, snapshot)
    return with_history.succeeds("rev-list", "--objects", *options, "--quiet", *snapshot.objects)


def walking(git: Git, snapshot: Snapshot) -> tuple[Git, list[str]]:
    """Return git that sees the snapshot's history and no more, and the `rev-list` options for it."""
    if snapshot.commit is None or git.folder is None:
        return git, ["--no-walk"]
    # Without --no-walk: git ignores it as soon as anything is excluded.
    file = git.folder / CUTS / (snapshot.history or snapshot.commit)
    file.parent.mkdir(exist_ok=True)
    write_file(file, "".join(f"{oid}\n" for oid in snapshot.cut))
    limited = Git({**git.environment, "GIT_SHALLOW_FILE": str(file)}, git.folder)
    limited.options = git.options
    return limited, []


def _objects(git: Git, snapshot: Snapshot, wanted: Sequence[str], excluded: Sequence[str]) -> bytes:
    """Return object ids with their paths, by which pack-objects finds delta bases."""
    if not wanted:
        return b""
    revisions = "".join(f"{revision}\n" for revision in (*wanted, *excluded))
    walker, options = walking(git, snapshot)
    return walker.run("rev-list", "--objects", *options, "--stdin", stdin=revisions.encode())
