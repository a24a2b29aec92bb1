"""What every artifact store can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from dstack.model.manifest import Manifest


class Store(Protocol):
    """Keeps what jobs made, at `<run>/<workflow>/<path>`, with `manifest.json` beside it, written last.

    How the files get there is each store's own: a folder receives them, a bucket has hosts upload them. All of it may
    be repeated, also after a crash at any point. Trouble raises StorageError.
    """

    async def commit(self, manifest: Manifest) -> Manifest:
        """Have all files at their paths, then write the manifest, which is returned as written. What an earlier
        commit left there is replaced. Raises StorageError for paths that can't be, and where a content is missing."""
        ...

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        """What the job left; None where there is no manifest, or none that can be read."""
        ...

    def verify(self, manifest: Manifest) -> str | None:
        """What of it is damaged or gone, in a few words, or None. It hashes only what was touched."""
        ...

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """A stored file's bytes from `offset` on. Raises NotFoundError for what is no file of the job's."""
        ...

    def tar(self, manifests: Sequence[Manifest]) -> AsyncIterator[bytes]:
        """A tar stream of all their files, for a job that depends on them. It breaks off with StorageError where a
        file's bytes are not those of the manifest."""
        ...

    def conflicts(self, manifests: Sequence[Manifest]) -> str | None:
        """Why these can't be given to one job, or None: two give one path different bytes."""
        ...

    async def sweep(self) -> None:
        """Remove what crashes left unfinished. For a server that begins: nothing else may be writing."""
        ...

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Remove what is there of a job without a manifest, which nobody adds to any more; its bytes."""
        ...

    async def remove(self, run: str, workflow: str) -> None:
        """Remove what the job left, and the contents that nothing else uses."""
        ...
