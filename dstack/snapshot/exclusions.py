"""`.dstackignore`: files that a snapshot leaves out in addition to those git ignores, even tracked ones."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from dstack.plumbing.git import Git
from dstack.plumbing.trees import EMPTY_BLOB, GITLINK, above, make_tree
from dstack.snapshot.blobs import Blobs
from dstack.snapshot.listing import Listing

NAME = ".dstackignore"
FILE = "100644"


def leave_out(root: Path, listing: Listing, blobs: Blobs) -> set[bytes]:
    """Remove the paths that match the rules (as in gitignore) from the listing, and return them. git does the matching:
    the paths are put into a separate index, to which it applies the `.dstackignore` files."""
    name = NAME.encode()
    if not (root / NAME).is_file() and not any(path.endswith(b"/" + name) for path in listing.files):
        return set()
    git = blobs.git("ignore-index", GIT_WORK_TREE=str(root))
    git.folder = root
    oid = EMPTY_BLOB[blobs.object_format]
    submodules = [(GITLINK, oid, path) for path in listing.submodules]
    left = _matching(git, [*((FILE, oid, path) for path in listing.files), *submodules])
    listing.files = {path: found for path, found in listing.files.items() if path not in left}
    listing.submodules = {path: commit for path, commit in listing.submodules.items() if path not in left}
    _leave_out_folders(git, oid, listing, left)
    for repository in list(listing.repositories):
        inside = repository.path + b"/"
        if repository.path and not any(path.startswith(inside) for path in listing.files):
            listing.repositories.remove(repository)
            left.add(repository.path)
    return left


def _leave_out_folders(git: Git, oid: str, listing: Listing, left: set[bytes]) -> None:
    """Remove folders without files. An index can't hold both a folder and one inside it, so they are matched depth by
    depth."""
    holding = above([*listing.files, *listing.submodules])
    bare = listing.folders.keys() - holding - listing.submodules.keys() - left
    gone = listing.folders.keys() & left
    for _, level in groupby(sorted(bare, key=lambda path: path.count(b"/")), lambda path: path.count(b"/")):
        folders = list(level)
        inside = {path for path in folders if path.rpartition(b"/")[0] in gone}
        gone |= inside | _matching(git, [(GITLINK, oid, path) for path in folders if path not in inside])
    listing.folders = {path: mode for path, mode in listing.folders.items() if path not in gone}


def _matching(git: Git, entries: Iterable[tuple[str, str, bytes]]) -> set[bytes]:
    """Return the paths that match the rules."""
    make_tree(git, entries)
    matching = git.run("ls-files", "--cached", "--ignored", f"--exclude-per-directory={NAME}", "-z")
    return set(matching.split(b"\0")) - {b""}
