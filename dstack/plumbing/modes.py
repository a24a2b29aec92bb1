"""Permissions that git does not record, and folders without files.

A snapshot has the umask that gives most of its tree the right permissions. The rest is in a git tree, the snapshot's
`modes`, which `templates/host/code/_modes.sh.j2` applies. Its blobs are lists of paths, each with `./` in front and a
NUL behind:

    empty      folders that contain nothing
    0000-0600  paths with the mode 0600; the first number is the order in which modes are set

Folders keep setgid and sticky, which affect those who create files in them. Files lose setuid and setgid: these would
grant the rights of the file's owner, who is another user on the host.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dstack.errors import UsageError
from dstack.model.code.snapshot import Snapshot
from dstack.model.code.tree import TreeFile
from dstack.plumbing.git import Git
from dstack.plumbing.trees import GITLINK, LINK, above, entries

OF_FILES = 0o777
OF_FOLDERS = 0o3777
EMPTY = "empty"
_GROUP = re.compile(r"\d{4}-([0-7]{4})")


@dataclass
class Modes:
    """`groups` are modes with the paths that have them, in an order in which they can be set; `empty` are folders.
    Paths are relative to the root, which is b""."""

    groups: list[tuple[int, list[bytes]]] = field(default_factory=list)
    empty: list[bytes] = field(default_factory=list)

    @property
    def by_path(self) -> dict[bytes, int]:
        """The mode of each path whose mode differs from what the umask gives."""
        return {path: mode for mode, paths in self.groups for path in paths}


def load(git: Git, tree: str | None) -> Modes:
    """Read a tree that `store` wrote. Raises UsageError for any other."""
    modes = Modes()
    for line in git.run("ls-tree", "-z", tree).split(b"\0")[:-1] if tree else ():
        about, _, name = line.decode(errors="replace").partition("\t")
        match = _GROUP.fullmatch(name)
        if not about.startswith("100644 blob ") or not (match or name == EMPTY):
            raise _invalid(f"it has the entry {name!r}")
        paths = git.run("cat-file", "blob", about.split()[2]).split(b"\0")
        if paths.pop() or not all(path.startswith(b"./") for path in paths):
            raise _invalid(f"{name} is not a list of paths")
        if match:
            modes.groups.append((int(match[1], 8), [path[2:] for path in paths]))
        else:
            modes.empty = [path[2:] for path in paths]
    return modes


def check(git: Git, snapshot: Snapshot) -> None:
    """Raise UsageError unless every path is a file or folder of the snapshot's tree: a host does not check them, and
    others could lead anywhere."""
    if not snapshot.modes:
        return
    modes = load(git, snapshot.modes)
    listed = [(path, kind) for kind, _, _, path in entries(git, snapshot.tree)]
    kinds = dict(listed)
    if len(kinds) != len(listed):
        raise _invalid("the tree has a path twice")
    solid = {path for path, kind in kinds.items() if kind != GITLINK}
    folders = above([*kinds, *modes.empty]) | {*modes.empty} | (kinds.keys() - solid)
    if both := solid & folders:
        raise _invalid(f"{min(both)!r} can't be a folder")
    for mode, paths in [*modes.groups, (0, modes.empty)]:
        for path in paths:
            in_tree = path in folders or kinds.get(path, LINK) != LINK
            if not in_tree or (path and not {b"", b".", b"..", b".git"}.isdisjoint(path.split(b"/"))):
                raise _invalid(f"{path!r} is not a file or folder of the tree")
            if mode & ~(OF_FOLDERS if path in folders else OF_FILES):
                raise _invalid(f"{path!r} can't have the mode {mode:o}")


def _invalid(why: str) -> UsageError:
    return UsageError(f"the snapshot's list of modes is invalid: {why}", hint="update dstack")


def comments(modes: Modes) -> bytes:
    """Return one comment line per path with its own mode and per empty folder."""
    lines = [b"# mode %04o %s\n" % (mode, _line(path)) for path, mode in sorted(modes.by_path.items())]
    return b"".join([*lines, *(b"# empty folder %s\n" % _line(path) for path in modes.empty)])


def _line(path: bytes) -> bytes:
    return path.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") or b"."


def counted(files: Iterable[TreeFile], modes: Modes) -> list[TreeFile]:
    """Return the files with their owner's permissions, which results may depend on, and folders that are empty or
    deny their owner something. The permissions of others depend on the umask and don't count."""
    own = {os.fsdecode(path): mode >> 6 & 7 for path, mode in modes.by_path.items()}
    found = []
    for file in files:
        bits = own.pop(file.path, None)
        known = bits is None or file.mode == GITLINK
        found.append(file if known else TreeFile(file.path, _written("100", bits or 0), file.id))
    folders = {os.fsdecode(path): 7 for path in modes.empty}
    folders |= {path: bits for path, bits in own.items() if bits != 7}
    return [*found, *(TreeFile(f"{path or '.'}/", _written("040", bits), "") for path, bits in folders.items())]


def _written(kind: str, own: int) -> str:
    """Return the mode as git writes it, under the usual umask."""
    return f"{kind}{own:o}{own & 5:o}{own & 5:o}"
