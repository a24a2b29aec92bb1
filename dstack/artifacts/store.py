"""The protocol of all artifact stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from dstack.model.job.manifest import Manifest


class ArtifactStore(Protocol):
    """Keeps the artifacts of jobs at `<run>/<workflow>/<path>`, with `manifest.json` beside them, written last.

    How the files arrive is up to each store: a folder receives them, and to a bucket, runners upload them. Every step
    can be repeated, also after a crash at any point. Methods raise StorageError.
    """

    async def commit(self, manifest: Manifest) -> Manifest:
        """Put all files at their paths, then write the manifest and return it as written. Replaces an earlier commit.
        Raises StorageError for paths that can't be stored, and if a content is missing."""
        ...

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        """Return the job's manifest, or None if there is none that can be read."""
        ...

    def verify(self, manifest: Manifest) -> str | None:
        """Return what is damaged or gone, in a few words, or None. Hashes only files that were touched."""
        ...

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Return a stored file's bytes from `offset` on. Raises NotFoundError if the job has no such file."""
        ...

    def tar(self, manifests: Sequence[Manifest]) -> AsyncIterator[bytes]:
        """Return a tar stream of all their files, for a job that depends on them. It ends in StorageError at a file
        that does not match its manifest."""
        ...

    def conflicts(self, manifests: Sequence[Manifest]) -> str | None:
        """Return why one job can't have all of these, or None: two of them give one path different bytes."""
        ...

    async def sweep(self) -> None:
        """Remove what crashes left incomplete. Only for a starting server: nothing else may be writing."""
        ...

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Remove what a job without a manifest left, once nothing adds to it. Return its bytes."""
        ...

    async def remove(self, run: str, workflow: str) -> None:
        """Remove the job's artifacts, and the contents that nothing else uses."""
        ...
