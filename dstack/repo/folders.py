"""Which folders a working tree holds beside its files: those of the files, and empty ones that nothing ignores."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from dstack.repo.blobs import ChangedError
from dstack.repo.git import Git


def above(paths: Iterable[bytes]) -> set[bytes]:
    """All folders that these paths lie in; b"" is the root."""
    found = {b""}
    for path in paths:
        folder = path.rpartition(b"/")[0]
        while folder not in found:
            found.add(folder)
            folder = folder.rpartition(b"/")[0]
    return found


def leaves(folders: Iterable[bytes], files: Iterable[bytes]) -> set[bytes]:
    """The folders in which nothing is, neither one of the files nor another folder."""
    bare = set(folders) - above(files)
    return bare - above(bare)


def find_folders(git: Git, root: Path, files: Collection[bytes], apart: Collection[bytes]) -> dict[bytes, int]:
    """The permission bits of each folder by path: of those that hold `files`, and of those without any that git would
    not ignore. `apart` are folders that are not looked into: submodules and repositories within."""
    base = os.fsencode(root) + b"/"
    filled = {path: _look(base, path) for path in above([*files, *apart])}
    found = {**filled, **{path: _look(base, path) for path in apart if os.path.isdir(base + path)}}
    unknown = [below for path in _with_more(filled, found) for below in _below(base, path) if below not in found]
    while unknown:
        ignored = _ignored(git, unknown)
        kept = [path for path in unknown if path not in ignored]
        found.update((path, _look(base, path)) for path in kept)
        unknown = [below for path in kept for below in _below(base, path)]
    return {path: stat.S_IMODE(about.st_mode) for path, about in found.items()}


def _with_more(filled: Mapping[bytes, os.stat_result], found: Iterable[bytes]) -> Iterator[bytes]:
    """The folders that may hold others than those that were found. Most file systems count a folder's folders in its
    links (find(1), -noleaf), which saves reading it; one that does so shows it where some were found."""
    inside = Counter(path.rpartition(b"/")[0] for path in found if path)
    counting: dict[int, bool] = {}
    for path, number in inside.items():
        about = filled[path]
        counting[about.st_dev] = counting.get(about.st_dev, True) and about.st_nlink >= number + 2
    return (
        path for path, about in filled.items() if not counting.get(about.st_dev) or about.st_nlink != inside[path] + 2
    )


def _look(base: bytes, path: bytes) -> os.stat_result:
    try:
        return os.lstat(base + path)
    except OSError as error:
        raise ChangedError(path) from error


def _below(base: bytes, folder: bytes) -> list[bytes]:
    prefix = folder + b"/" if folder else b""
    try:
        with os.scandir(base + folder) as entries:
            folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise ChangedError(folder) from error
    return [prefix + name for name in folders if name != b".git"]


def _ignored(git: Git, folders: Collection[bytes]) -> set[bytes]:
    """Asked with the rule that decides: before 2.26, git named what a rule with `!` takes back, too. With `./` in
    front, a name that begins with a colon is no magic."""
    names = b"".join(b"./" + path + b"\0" for path in folders)
    words = git.run("check-ignore", "-v", "-z", "--stdin", stdin=names, accept=(0, 1)).split(b"\0")
    return {path[2:] for rule, path in zip(words[2::4], words[3::4], strict=False) if not rule.startswith(b"!")}
