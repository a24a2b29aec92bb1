"""The files of a tree, and what a snapshot says about them."""

from __future__ import annotations

from msgspec import Struct


class TreeFile(Struct, frozen=True):
    """A file of the snapshot. `mode` is git's, in octal (`100644`); `id` is that of its blob. The path of a folder ends
    with a slash, and its `id` is empty."""

    path: str
    mode: str
    id: str

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder. Only folders that are empty or have unusual permissions are listed."""
        return self.path.endswith("/")

    @property
    def is_link(self) -> bool:
        """Whether this is a symbolic link."""
        return self.mode == "120000"


class Change(Struct):
    """A path that differs from the commit. `change` is added, modified or deleted; `size` in bytes, 0 if deleted."""

    path: str
    change: str
    size: int


class SizedFile(Struct):
    """A file of the snapshot and its size in bytes."""

    path: str
    size: int


class PathMode(Struct):
    """A file or folder and its permissions, written as for chmod: `0600`."""

    path: str
    mode: str
