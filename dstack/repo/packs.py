"""Packs: what one side lacks of a snapshot, as deltas against what it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dstack.model.snapshot import Snapshot
from dstack.repo.git import Git

# git takes as many delta bases as its window is long (git-pack-objects, --window).
BASES = 10


def write_pack(git: Git, snapshot: Snapshot, known: Sequence[str], target: Path) -> Path:
    """Write the objects of commit (without its parents) and tree into `target`, but for those of `known`: commits and
    trees that the reader has, whose objects may serve as bases."""
    wanted = [oid for oid in snapshot.objects if oid not in known]
    git.write(
        target,
        *("pack-objects", "--stdout", "-q", "--delta-base-offset"),
        stdin=b"".join(b"-%s\n" % oid.encode() for oid in known[:BASES]) + _objects(git, wanted, known),
    )
    return target


def is_complete(git: Git, snapshot: Snapshot) -> bool:
    """Whether every object of commit (without its parents) and tree is there."""
    return git.succeeds("rev-list", "--objects", "--no-walk", "--quiet", *snapshot.objects)


def _objects(git: Git, wanted: Sequence[str], known: Sequence[str]) -> bytes:
    """Ids with their paths: pack-objects finds delta bases by path."""
    revisions = "".join(f"{oid}\n" for oid in wanted) + "".join(f"^{oid}^{{tree}}\n" for oid in known)
    return git.run("rev-list", "--objects", "--no-walk", "--stdin", stdin=revisions.encode())
