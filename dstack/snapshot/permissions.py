"""The permissions of a working tree that git does not keep, as a tree of their own."""

from __future__ import annotations

import stat
from collections import Counter
from itertools import groupby

from dstack.model.code.snapshot import PLAIN
from dstack.plumbing.modes import EMPTY, OF_FILES, OF_FOLDERS, Modes
from dstack.snapshot.blobs import Blobs
from dstack.snapshot.folders import leaves
from dstack.snapshot.listing import Listing


def describe(listing: Listing) -> tuple[int, Modes]:
    """Return the umask that fits most of what is on disk, and the modes of the rest."""
    files = {path: found.stat.st_mode for path, found in listing.files.items() if stat.S_ISREG(found.stat.st_mode)}
    umask = _umask(Counter(files.values()), Counter(listing.folders.values()))
    others = {path: mode & OF_FILES for path, mode in files.items() if mode & OF_FILES != _made(mode, umask)}
    folders = {path: mode & OF_FOLDERS for path, mode in listing.folders.items()}
    closed = {path: mode for path, mode in folders.items() if not mode & stat.S_IXUSR}
    others |= {path: mode for path, mode in folders.items() if mode != OF_FILES & ~umask and path not in closed}
    ordered = sorted(others, key=lambda path: (others[path], path))
    groups = [(mode, list(paths)) for mode, paths in groupby(ordered, others.__getitem__)]
    # Folders that can't be entered once their mode is set come last, deepest first.
    inwards = sorted(closed, key=lambda path: (-path.count(b"/"), path == b"", closed[path], path))
    groups += [(mode, list(paths)) for mode, paths in groupby(inwards, closed.__getitem__)]
    return umask, Modes(groups, sorted(leaves(listing.folders, [*listing.files, *listing.submodules])))


def _umask(files: Counter[int], folders: Counter[int]) -> int:
    """Return the umask that fits most paths and leaves the owner all permissions; the usual one wins a tie."""

    def right(umask: int) -> tuple[int, bool]:
        hits = sum(count for mode, count in files.items() if mode & OF_FILES == _made(mode, umask))
        hits += sum(count for mode, count in folders.items() if mode & OF_FOLDERS == OF_FILES & ~umask)
        return hits, umask == int(PLAIN, 8)

    return max(range(0o100), key=right)


def _made(mode: int, umask: int) -> int:
    """Return the mode that git gives such a file under this umask."""
    return (0o777 if mode & stat.S_IXUSR else 0o666) & ~umask


def store(blobs: Blobs, modes: Modes) -> str | None:
    """Store the modes as a tree and return its id, or None if there are none."""
    contents = [(f"{number:04}-{mode:04o}", paths) for number, (mode, paths) in enumerate(modes.groups)]
    contents += [(EMPTY, modes.empty)] if modes.empty else []
    if not contents:
        return None
    made = [(name, blobs.add(b"".join(b"./" + path + b"\0" for path in paths))) for name, paths in contents]
    lines = "".join(f"100644 blob {oid}\t{name}\0" for name, oid in made)
    return blobs.git().run("mktree", "-z", stdin=lines.encode()).decode().strip()
