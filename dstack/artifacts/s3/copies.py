"""Gives a job contents that other objects of the bucket have: S3 copies them, and nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial

from dstack.artifacts.files import to_its_end
from dstack.artifacts.s3.objects import Objects
from dstack.artifacts.store import ContentIndex
from dstack.model.job.manifest import File
from dstack.model.job.pieces import Stored

AT_ONCE = 16
"""Copies at a time."""


class Copies:
    """The objects of one job, and those with the same contents. `storage` is the store's name in the index."""

    def __init__(self, storage: str, objects: Objects, index: ContentIndex) -> None:
        self.storage = storage
        self.objects = objects
        self.index = index

    async def make(self, files: Sequence[File]) -> list[File]:
        """Copy what the store already has elsewhere; return the files that still have to be sent or checked."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def copy(file: File) -> File | None:
            async with gate:
                return None if await self.copy(file) else file

        return [file for file in await asyncio.gather(*map(copy, files)) if file]

    async def copy(self, file: File) -> bool:
        """Copy one file's content from another object, if one has it unchanged."""
        if self.recorded(file):
            return False
        own = self.objects.key(file.path)
        for source in self.index.find(self.storage, file.sha256, file.size):
            etag = await to_its_end(partial(self.objects.copy, own, source))
            if etag is not None:
                self.record([(file, etag)])
                return True
            self.index.forget(self.storage, [source.key])
        return False

    def recorded(self, file: File) -> Stored | None:
        """Return the job's own object of this file as it was last seen, or None."""
        own = self.objects.key(file.path)
        found = self.index.find(self.storage, file.sha256, file.size)
        return next((stored for stored in found if stored.key == own), None)

    def record(self, seen: Iterable[tuple[File, str]]) -> None:
        """Record the job's own objects of these files, with their ETags."""
        objects = [(file.sha256, Stored(self.objects.key(file.path), file.size, etag)) for file, etag in seen]
        self.index.add(self.storage, objects)
