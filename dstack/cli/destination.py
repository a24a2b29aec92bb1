"""Where a download goes: its paths, which never lead out of the folder, and its folders with their permissions."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

from dstack.errors import ConflictError, StorageError, UsageError


def safe(path: str) -> str:
    """Return the path. Raises StorageError for one that may leave the folder."""
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise StorageError(f"the storage lists a file with an unsafe path, '{path}'; nothing was downloaded")
    return path


def destination(root: Path, path: str) -> Path:
    """Return the path below `root`. Raises UsageError if a parent folder is a link or not a folder."""
    target = root / path
    for parent in reversed(target.parents[: path.count("/")]):
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            kind = "a symbolic link" if parent.is_symlink() else "a file"
            raise UsageError(f"{parent} is {kind}, not a folder; {path} can't go there", hint="choose another -o DIR")
    return target


class FolderTree:
    """The folders of a download below `root`; `modes` maps their paths to permission bits. While files arrive, all of
    them are open to their owner."""

    def __init__(self, root: Path, modes: Mapping[str, int]) -> None:
        self._root = root
        self._paths = sorted(map(safe, modes))
        self._modes = {root / path: modes[path] for path in self._paths}
        self._before: dict[Path, int] = {}

    def open(self) -> None:
        """Open the existing ones that are closed to their owner. Raises UsageError if a parent folder is a link or not
        a folder."""
        for path in self._paths:
            folder = destination(self._root, path)
            if folder.is_dir() and not folder.is_symlink():
                mode = stat.S_IMODE(folder.stat().st_mode)
                if mode & stat.S_IRWXU != stat.S_IRWXU:
                    self._before[folder] = mode
                    folder.chmod(mode | stat.S_IRWXU)

    def make(self) -> None:
        """Create the missing ones. Raises ConflictError, before creating any, if something else is in the way."""
        for folder in self._modes:
            if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
                raise ConflictError(f"a file is in the way of a folder: {folder}; nothing was downloaded")
        for folder in self._modes:
            folder.mkdir(parents=True, exist_ok=True)

    def finish(self) -> None:
        """Set the permissions. Deep folders come first, because a folder may be closed even to its owner."""
        for folder, mode in reversed(self._modes.items()):
            if stat.S_IMODE(folder.stat().st_mode) != mode:
                folder.chmod(mode)

    def restore(self) -> None:
        """Close again what was opened."""
        for folder, mode in reversed(self._before.items()):
            folder.chmod(mode)
