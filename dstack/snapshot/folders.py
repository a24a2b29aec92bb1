"""Finds the folders of a working tree: those that hold files, and empty ones that git does not ignore."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from dstack.plumbing.git import Git
from dstack.plumbing.trees import above
from dstack.snapshot.blobs import ChangedError, look


def leaves(folders: Iterable[bytes], files: Iterable[bytes]) -> set[bytes]:
    """Return the folders that contain neither one of the files nor another folder."""
    bare = set(folders) - above(files)
    return bare - above(bare)


def find_folders(git: Git, root: Path, files: Collection[bytes], apart: Collection[bytes]) -> dict[bytes, int]:
    """Return the permission bits of each folder by path: of those that hold `files`, and of those without files that
    git does not ignore. `apart` are submodules and nested repositories, which are not searched."""
    base = os.fsencode(root) + b"/"
    filled = {path: look(base, path) for path in above([*files, *apart])}
    found = {**filled, **{path: look(base, path) for path in apart if os.path.isdir(base + path)}}
    unknown = [below for path in _with_more(filled, found) for below in _below(base, path) if below not in found]
    while unknown:
        ignored = _ignored(git, unknown)
        kept = [path for path in unknown if path not in ignored]
        found.update((path, look(base, path)) for path in kept)
        unknown = [below for path in kept for below in _below(base, path)]
    return {path: stat.S_IMODE(about.st_mode) for path, about in found.items()}


def _with_more(filled: Mapping[bytes, os.stat_result], found: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the folders that may have more subfolders than were found. Most file systems count subfolders in a folder's
    links (find(1), -noleaf), so it need not be read. A file system does so if the counts cover all that were found."""
    inside = Counter(path.rpartition(b"/")[0] for path in found if path)
    counting: dict[int, bool] = {}
    for path, number in inside.items():
        about = filled[path]
        counting[about.st_dev] = counting.get(about.st_dev, True) and about.st_nlink >= number + 2
    return (
        path for path, about in filled.items() if not counting.get(about.st_dev) or about.st_nlink != inside[path] + 2
    )


def _below(base: bytes, folder: bytes) -> list[bytes]:
    prefix = folder + b"/" if folder else b""
    try:
        with os.scandir(base + folder) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise ChangedError(folder) from error
    return [prefix + name for name in folders if name != b".git"]


def _ignored(git: Git, folders: Collection[bytes]) -> set[bytes]:
    """Return the ignored folders. -v shows the rule that decides: before git 2.26, paths that a `!` rule takes back
    were listed, too. The leading `./` keeps a colon from starting pathspec magic."""
    names = b"".join(b"./" + path + b"\0" for path in folders)
    words = git.run("check-ignore", "-v", "-z", "--stdin", stdin=names, accept=(0, 1)).split(b"\0")
    return {path[2:] for rule, path in zip(words[2::4], words[3::4], strict=False) if not rule.startswith(b"!")}
