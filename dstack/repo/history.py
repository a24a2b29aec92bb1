"""How much of the past goes with a snapshot."""

from __future__ import annotations

from dstack.repo.worktree import Worktree


def boundary(worktree: Worktree, commit: str, depth: int) -> tuple[str, ...]:
    """The commits at which a history of so many commits ends (0: of all that the repository has): their parents are
    left out. A shallow clone's own end counts."""
    git = worktree.git()
    own = worktree.common / "shallow"
    ends = set(own.read_text().split()) if own.is_file() else set()
    if depth == 0:
        if not ends:
            return ()
        return tuple(sorted(ends & set(git.run("rev-list", "--max-parents=0", commit).decode().split())))
    parents = {
        oid: rest
        for oid, *rest in (line.split() for line in git.run("rev-list", "--parents", commit).decode().splitlines())
    }
    seen, level = {commit}, [commit]
    for _ in range(depth - 1):
        level = [parent for oid in level for parent in parents.get(oid, ()) if parent not in seen]
        seen.update(level)
    cut = {oid for oid in seen if any(parent not in seen for parent in parents.get(oid, ()))}
    return tuple(sorted(cut | (seen & ends)))
