"""The code of a run: a commit, and the user's files on disk as a git tree."""

from __future__ import annotations

from hashlib import sha256

from msgspec import Struct

PLAIN = "022"
"""The usual umask."""


class Snapshot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A working tree as it was when the run was submitted. Paths are relative to the git root.

    - `repo` names the mirror on the server and on runners; `url` is the remote without credentials, or None.
    - `commit` is None for a folder without git or without a commit; `branch` is None for a detached HEAD.
    - `tree` is the id of a git tree of the raw bytes on disk. `index` is the id of a tree with what git knows beyond
      commit and files (`dstack/repo/status.py`), or None.
    - `project` is the folder that contains `.dstack`, "" for the root. `object_format` is sha1 or sha256.
    - `depth` is the number of commits in the history, 0 for all. `shallow` has the commits whose parents are left out,
      unless that is just the commit of depth 1. `ends` has the same for other depths that some jobs ask for.
    - `upstream` is the commit that the branch is compared with, if it differs: the history includes all between them.
    - `umask`, three octal digits, gives most files and folders their permissions. `modes` is the id of a tree with the
      other permissions (`dstack/repo/modes.py`), or None.
    """

    repo: str
    tree: str
    index: str | None = None
    commit: str | None = None
    url: str | None = None
    branch: str | None = None
    dirty: bool = False
    project: str = ""
    object_format: str = "sha1"
    git: bool = True
    depth: int = 1
    shallow: tuple[str, ...] = ()
    ends: dict[int, tuple[str, ...]] = {}
    upstream: str | None = None
    umask: str = PLAIN
    modes: str | None = None

    @property
    def objects(self) -> tuple[str, ...]:
        """The ids from which every object of the snapshot can be reached."""
        return (*self.commits, *self.trees)

    @property
    def trees(self) -> tuple[str, ...]:
        """The ids of its trees."""
        return tuple(oid for oid in (self.tree, self.index, self.modes) if oid)

    @property
    def commits(self) -> tuple[str, ...]:
        """The newest commits of its history."""
        return tuple(oid for oid in (self.commit, self.upstream) if oid)

    @property
    def history(self) -> str | None:
        """A name for a history that is more than the commit: `full-` or a hash of where it ends, and the commit."""
        if self.commit is None or (self.depth == 1 and not self.shallow):
            return None
        return f"{_hash(self.shallow) if self.shallow else 'full'}-{self.commit}"

    @property
    def cut(self) -> tuple[str, ...]:
        """The commits whose parents are left out."""
        return (self.commit,) if self.commit and self.depth == 1 and not self.shallow else self.shallow

    def cut_at(self, depth: int) -> tuple[str, ...]:
        """Return `cut` for a job that asked for this depth."""
        return self.ends.get(depth, self.cut)

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that a holder of the complete snapshot must have."""
        return (*self.objects, *([self.history] if self.history else []))


def _hash(oids: tuple[str, ...]) -> str:
    return sha256(" ".join(oids).encode()).hexdigest()[:16]
