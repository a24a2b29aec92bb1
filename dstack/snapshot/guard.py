"""Refuses a snapshot that is too large, usually because a data folder was forgotten."""

from __future__ import annotations

import os
from collections import Counter

from dstack.errors import UsageError
from dstack.model.text.units import size_words
from dstack.snapshot.listing import Listing

LIMIT = 256 * 10**6
"""The default limit on changed and untracked content in a snapshot, in bytes."""
SHOWN = 10


class Guard:
    """Counts the bytes that differ from the commit, starting with what is known to differ before any file is read.
    `limit` is in bytes; 0 for none. Raises UsageError above the limit."""

    def __init__(self, limit: int, listing: Listing, staged: set[bytes]) -> None:
        self.limit = limit
        self.sizes = {
            path: found.stat.st_size
            for path, found in listing.files.items()
            if path in staged or (found.id is None and found.indexed is None)
        }
        self.total = sum(self.sizes.values())
        self._check()

    def add(self, path: bytes, size: int) -> None:
        """Count a tracked file that turned out to differ, before it is stored. Raises UsageError above the limit."""
        self.sizes[path] = size
        self.total += size
        self._check()

    def _check(self) -> None:
        if self.limit and self.total > self.limit:
            raise UsageError(
                f"the snapshot has {size_words(self.total)} of changed and untracked files, and the limit is "
                f"{size_words(self.limit)}; nothing was sent\n{largest(self.sizes)}",
                hint="add what the job does not need to .gitignore or .dstackignore, or raise the limit: "
                f"--max-snapshot {-(-self.total // 10**6)}MB",
            )


def largest(sizes: dict[bytes, int]) -> str:
    """Return a list of the largest files and folders, one per line."""
    folders: Counter[bytes] = Counter()
    for path, size in sizes.items():
        while path := os.path.dirname(path):
            folders[path] += size
    parents = {os.path.dirname(path) for path in folders if folders[path] == folders.get(os.path.dirname(path))}
    lines = _lines("largest files", sizes, b"")
    tightest = {path: size for path, size in folders.items() if path not in parents}
    return "\n".join([*lines, *_lines("largest folders", tightest, b"/")])


def _lines(title: str, sizes: dict[bytes, int], end: bytes) -> list[str]:
    if not sizes:
        return []
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:SHOWN]
    return [f"{title}:", *(f"  {size_words(size):>10}  {os.fsdecode(path + end)}" for path, size in ordered)]
