"""The list of a job's artifacts. Written last: without a manifest, there are no artifacts."""

from __future__ import annotations

from msgspec import Struct


class File(Struct, frozen=True, omit_defaults=True):
    """One file of an artifact. `path` is relative to the project's folder and uses '/'; bytes that are not UTF-8 become
    surrogate escapes. `size` is in bytes, `mode` has the permission bits, `sha256` is in hex. A symbolic link has its
    target in `link`, and an empty `sha256`. `etag` is the object store's checksum, if one holds the file.
    """

    path: str
    size: int
    mode: int
    sha256: str
    link: str | None = None
    etag: str | None = None


PARTIAL = "running"
"""The status of artifacts stored while their job was running."""


class Manifest(Struct, frozen=True):
    """The artifacts of a job. `status` is the job's final status: the cache uses only `done` ones."""

    job: str
    run: str
    workflow: str
    status: str
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """The total size of all files."""
        return sum(file.size for file in self.files)
