"""The list of what a job made. Written last: without a manifest there are no artifacts."""

from __future__ import annotations

from msgspec import Struct


class File(Struct, frozen=True, omit_defaults=True):
    """One file of an artifact. `path` is relative to the project's folder, with '/' between the parts; bytes that
    are not UTF-8 stand as surrogate escapes. `size` in bytes; `mode` holds the permission bits; `sha256` in hex.
    For a symbolic link `link` is its target, and `sha256` is empty. `etag` is the object store's own sum, where one
    keeps the file.
    """

    path: str
    size: int
    mode: int
    sha256: str
    link: str | None = None
    etag: str | None = None


PARTIAL = "running"
"""The status of what was stored while its job ran."""


class Manifest(Struct, frozen=True):
    """What a job left. `status` is the job's end: only a `done` one serves the cache."""

    job: str
    run: str
    workflow: str
    status: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """The sizes of all files together."""
        return sum(file.size for file in self.files)
