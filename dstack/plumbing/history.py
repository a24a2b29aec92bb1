"""How far the history of a commit goes."""

from __future__ import annotations

from dstack.plumbing.git import Git


def boundary(git: Git, ends: set[str], commit: str, depth: int) -> tuple[str, ...]:
    """Return the commits at which a history of `depth` commits (0: all) ends: those whose parents are left out. The
    `ends` of a shallow repository are among them."""
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


def with_depths(ends: dict[int, tuple[str, ...]], depths: set[int]) -> tuple[int, tuple[str, ...]]:
    """Take the end of the deepest history out of `ends` (by depth); return its depth and end."""
    deepest = 0 if 0 in depths else max(depths)
    shallow = ends.pop(deepest)
    return (deepest if shallow else 0), shallow
