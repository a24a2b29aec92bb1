"""Decides how much history goes with a snapshot."""

from __future__ import annotations

from msgspec.structs import replace

from dstack.model.code.snapshot import Snapshot
from dstack.snapshot.worktree import Worktree


def with_history(snapshot: Snapshot, worktree: Worktree | None, depths: set[int]) -> Snapshot:
    """Return the snapshot with as much history as the deepest of `depths` (in commits; 0: all) asks for."""
    if worktree is None or snapshot.commit is None or depths == {1}:
        return snapshot
    ends = {depth: boundary(worktree, snapshot.commit, depth) for depth in depths}
    deepest = 0 if 0 in depths else max(depths)
    shallow = ends.pop(deepest)
    return replace(snapshot, depth=deepest if shallow else 0, shallow=shallow, ends=ends)


def boundary(worktree: Worktree, commit: str, depth: int) -> tuple[str, ...]:
    """Return the commits at which a history of `depth` commits (0: all) ends: those whose parents are left out. The
    ends of a shallow clone are among them."""
    git = worktree.git()
    own = worktree.common / "shallow"
    ends = set(own.read_text().split()) if own.is_file() else set()
    if depth == 0:
        roots = git.run("rev-list", "--max-parents=0", commit).decode().split() if ends else ()
        return tuple(sorted(ends.intersection(roots)))
    lines = git.run("rev-list", "--parents", commit).decode().splitlines()
    parents = {oid: rest for oid, *rest in map(str.split, lines)}
    level = [commit]
    seen = {commit}
    for _ in range(depth - 1):
        level = [parent for oid in level for parent in parents.get(oid, ())]
        seen.update(level)
    cut = {oid for oid in seen if any(parent not in seen for parent in parents.get(oid, ()))}
    return tuple(sorted(cut | (seen & ends)))
