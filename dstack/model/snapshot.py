"""What a run's code is: a commit, and the tree that the user had on disk."""

from __future__ import annotations

from msgspec import Struct


class Snapshot(Struct, frozen=True, kw_only=True):
    """A working tree as it was when the run was submitted. Paths are relative to the git root.

    `repo` names the mirror on server and hosts; `url` is the remote without credentials, or None; `tree` is the id of
    a git tree made of the raw bytes on disk; `commit` is None for a folder without git or without a commit;
    `index` is that of a tree which says what git knows beyond commit and files (`dstack/repo/status.py`), None for
    nothing. `branch` is None for a detached HEAD. `project` is the folder that holds `.dstack`, "" for the root.
    `object_format` is git's: sha1 or sha256.
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

    @property
    def objects(self) -> tuple[str, ...]:
        """The ids from which all of it is reached."""
        return tuple(oid for oid in (self.commit, self.tree, self.index) if oid)
