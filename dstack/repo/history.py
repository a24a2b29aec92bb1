"""How much of the past goes with a snapshot."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from dstack.model.snapshot import Snapshot
from dstack.repo.upstream import Upstream
from dstack.repo.worktree import Worktree


def with_history(
    snapshot: Snapshot, worktree: Worktree | None, upstream: Upstream | None, depths: set[int]
) -> Snapshot:
    """The snapshot with as much of the past as the deepest wants, and what is between the branch and its upstream."""
    if worktree is None or snapshot.commit is None:
        return snapshot
    between = upstream.between if upstream else frozenset()
    if depths == {1} and not between:
        return snapshot
    theirs = upstream.commit if upstream and between else None
    tips = [snapshot.commit, *filter(None, [theirs])]
    ends = {depth: boundary(worktree, tips, depth, between) for depth in depths}
    deepest = 0 if 0 in depths else max(depths)
    shallow = ends.pop(deepest)
    return replace(snapshot, depth=deepest if shallow else 0, shallow=shallow, ends=ends, upstream=theirs)


def boundary(worktree: Worktree, tips: Sequence[str], depth: int, between: Collection[str]) -> tuple[str, ...]:
    """The commits at which a history of so many commits ends (0: of all that the repository has): their parents are
    left out. A shallow clone's own end counts. The first of the tips is the snapshot's commit; those `between` them
    belong to the history, whatever its depth."""
    git = worktree.git()
    own = worktree.common / "shallow"
    ends = set(own.read_text().split()) if own.is_file() else set()
    if depth == 0:
        return tuple(sorted(ends & set(git.run("rev-list", "--max-parents=0", *tips).decode().split()))) if ends else ()
    parents = {
        oid: rest
        for oid, *rest in (line.split() for line in git.run("rev-list", "--parents", *tips).decode().splitlines())
    }
    level = [tips[0]]
    seen = {*between, *level}
    for _ in range(depth - 1):
        level = [parent for oid in level for parent in parents.get(oid, ())]
        seen.update(level)
    cut = {oid for oid in seen if any(parent not in seen for parent in parents.get(oid, ()))}
    return tuple(sorted(cut | (seen & ends)))
