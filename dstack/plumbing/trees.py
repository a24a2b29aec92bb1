"""Makes, lists and compares git trees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dstack.plumbing.git import Git

EMPTY_TREE = {
    40: "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    64: "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
}
EMPTY_BLOB = {
    "sha1": "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391",
    "sha256": "473a0f4c3be8a93681a267e3b1e9a7dcda1185436fe141f7749120a303721813",
}
_CHANGES = {"A": "added", "D": "deleted"}


@dataclass(frozen=True)
class Difference:
    """A path that differs between two trees: `change` is added, modified or deleted; `old` and `new` are object ids."""

    path: bytes
    change: str
    old: str
    new: str


def make_tree(git: Git, entries: Iterable[tuple[str, str, bytes]]) -> str:
    """Write a tree with these (mode, object id, path) and return its id. Overwrites the index of `git`."""
    lines = b"".join(b"%s %s\t%s\0" % (mode.encode(), oid.encode(), path) for mode, oid, path in entries)
    git.run("read-tree", "--empty")
    git.run("update-index", "-z", "--index-info", stdin=lines)
    return git.run("write-tree", "--missing-ok").decode().strip()


def differences(git: Git, commit: str | None, tree: str) -> list[Difference]:
    """Return the paths at which `tree` differs from the commit's tree; all paths without a commit."""
    base = commit or EMPTY_TREE[len(tree)]
    words = git.run("diff-tree", "-r", "-z", "--no-renames", base, tree).split(b"\0")
    found = []
    for about, path in zip(words[0::2], words[1::2], strict=False):
        _, _, old, new, status = about.decode().split(" ")
        found.append(Difference(path, _CHANGES.get(status, "modified"), old, new))
    return found


def entries(git: Git, tree: str, *, sized: bool = False) -> Iterator[tuple[str, str, int, bytes]]:
    """Yield mode, object id, size in bytes (0 unless `sized`) and path of each file, link and submodule."""
    options = ("-r", "-z", "--full-tree", *(("-l",) if sized else ()))
    for line in git.run("ls-tree", *options, tree).split(b"\0"):
        if line:
            about, _, path = line.partition(b"\t")
            mode, _, oid, *size = about.decode().split()
            yield mode, oid, int(size[0]) if size and size[0].isdigit() else 0, path


GITLINK = "160000"
LINK = "120000"


def above(paths: Iterable[bytes]) -> set[bytes]:
    """Return all folders that contain these paths; b"" is the root."""
    found = {b""}
    for path in paths:
        folder = path.rpartition(b"/")[0]
        while folder not in found:
            found.add(folder)
            folder = folder.rpartition(b"/")[0]
    return found
