"""A run's code: a commit, and the tree that the user had on disk."""

from __future__ import annotations

import re
from hashlib import sha256

from msgspec import Struct

PLAIN = "022"
"""The usual umask."""


_BRANCH = re.compile(r"(?![-/])[^\x00-\x20\x7f~^:?*\[\\]{1,1000}")


class Snapshot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A working tree as it was when the run was submitted. Paths are relative to the git root.

    `repo` names the mirror on the server and on hosts; `url` is the remote without credentials, or None. `tree` is the
    id of a git tree made of the raw bytes on disk. `commit` is None without git or without a commit, `branch` is None
    for a detached HEAD. `index` is the id of a tree with what git knows beyond commit and files
    (`dstack/snapshot/git_status.py`), None for nothing. `project` is the folder that holds `.dstack`, "" for the root.
    `object_format` is git's: sha1 or sha256. `depth` is how many commits deep the history goes, 0 for all of it;
    `shallow` are the commits whose parents are left out of a history deeper than 1, and `ends` are the same for other
    depths, which some jobs see. `umask`, three octal digits, makes the permissions of most files and folders right;
    `modes` is the id of a tree with the rest (`dstack/plumbing/modes.py`), None for nothing.
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
    umask: str = PLAIN
    modes: str | None = None

    @property
    def trees(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.tree, self.index, self.modes)))

    @property
    def objects(self) -> tuple[str, ...]:
        """The object ids from which everything is reached."""
        return (*filter(None, [self.commit]), *self.trees)

    @property
    def history(self) -> str | None:
        """The name of a history deeper than 1: `full-` or a hash of its ends, and the commit. None for depth 1."""
        if self.commit is None or self.depth == 1:
            return None
        ends = sha256(" ".join(self.shallow).encode()).hexdigest()[:16] if self.shallow else "full"
        return f"{ends}-{self.commit}"

    @property
    def cut(self) -> tuple[str, ...]:
        """The commits whose parents are left out."""
        return (self.commit,) if self.commit and self.depth == 1 else self.shallow

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which all of it is kept in a mirror."""
        return (*self.objects, *filter(None, [self.history]))


def trouble(snapshot: Snapshot) -> str | None:
    """Why the snapshot's names could lead out of a job's folder, or be more than names to git; None if they can't."""
    project, branch = snapshot.project, snapshot.branch
    if project and ({"", ".", "..", ".git"}.intersection(project.split("/")) or "\0" in project):
        return f"the snapshot's project folder {project!r} is not a path inside the repository"
    if branch is not None and (not _BRANCH.fullmatch(branch) or ".." in branch):
        return f"the snapshot's branch {branch!r} is not a valid name (git-check-ref-format(1))"
    return None
