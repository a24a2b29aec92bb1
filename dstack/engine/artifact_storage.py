"""Where artifacts are stored: now, and in the past."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from pathlib import Path

from msgspec.structs import replace

from dstack.artifacts.open import open_store
from dstack.artifacts.store import ArtifactStore, JobFolder, Location
from dstack.artifacts.tarball import Entry
from dstack.errors import StorageError, StorageUnavailableError, UsageError
from dstack.model.job.job import Job
from dstack.model.job.manifest import PARTIAL, File, Manifest, conflicts
from dstack.model.job.reasons import ReasonCode
from dstack.store.store import Store

EARLIER = "earlier_storages"
"""The setting that lists the stores in use before the current one."""
ANSWERS = 20.0
"""Seconds after which a store that does not answer counts as unavailable; boto3 itself tries for minutes."""


class ArtifactStorage:
    """The stores, and what is in them. Without a setting, artifacts are stored in `folder`. Presigned URLs are valid
    for `url_lifetime` seconds."""

    def __init__(self, store: Store, folder: Path, url_lifetime: int) -> None:
        self.store = store
        self.folder = folder
        self.url_lifetime = url_lifetime
        self.opened: dict[tuple[str, str], ArtifactStore] = {}
        self.reached: set[tuple[str, str]] = set()
        self.reading: dict[tuple[str, str, str], asyncio.Task[Manifest | None]] = {}

    @property
    def url(self) -> str:
        """Where artifacts are stored now: a folder, or s3://bucket/prefix."""
        return self.store.settings.get("storage") or str(self.folder)

    @property
    def endpoint(self) -> str:
        """The endpoint of the current store; empty for AWS and for a folder."""
        return self.store.settings.get("endpoint_url") or ""

    @property
    def earlier(self) -> list[tuple[str, str]]:
        """The URLs and endpoints of the stores in use before, the latest last."""
        return [(url, endpoint) for url, endpoint in json.loads(self.store.settings.get(EARLIER) or "[]")]

    @property
    def current(self) -> ArtifactStore:
        return self.at(self.url, self.endpoint)

    def at(self, url: str, endpoint: str) -> ArtifactStore:
        """The store at a URL; its connections are kept. Raises UsageError for a URL that no store can have."""
        if (url, endpoint) not in self.opened:
            location = Location(url, endpoint or None, self.store.bucket_contents, self.url_lifetime)
            self.opened[url, endpoint] = open_store(location)
        return self.opened[url, endpoint]

    def of(self, job: Job) -> list[ArtifactStore]:
        """Every store that may have artifacts of the job, including those in use before `dstack config --storage`."""
        return [self.at(url, endpoint) for url, endpoint in job.storages or ((self.url, self.endpoint),)]

    async def use(self, url: str, endpoint: str) -> None:
        """Store artifacts there from now on. Raises UsageError if it can't be written to. Earlier artifacts stay where
        they are, and are read from there."""
        found = self.at(url, endpoint)
        try:
            await asyncio.to_thread(found.check)
        except UsageError:
            self.opened.pop((url, endpoint), None)  # the next try may come with other credentials
            raise
        before = [each for each in self.earlier if each != (self.url, self.endpoint)]
        with self.store.database.transaction():
            self.store.settings.set(EARLIER, json.dumps([*before, (self.url, self.endpoint)]))
            self.store.settings.set("storage", found.url)
            self.store.settings.set("endpoint_url", endpoint)

    async def reach(self, folder: JobFolder) -> None:
        """Raise StorageUnavailableError if the host can't reach the current store. Each runner is asked once in a
        server's life."""
        storage = self.current
        if (folder.runner, storage.name) not in self.reached:
            await storage.reach(folder)
            self.reached.add((folder.runner, storage.name))

    async def remove(self, job: Job, storage: ArtifactStore) -> None:
        """Remove what a job left in a store, once it is on disk that it has to go. Raises StorageError, after which it
        may be tried again."""
        if storage.name != self.current.name and (why := await asyncio.to_thread(storage.absent)):
            raise StorageError(why)
        await self.store.database.synced()
        await storage.remove(job.run, job.workflow)

    def holding(self, job: Job) -> list[ArtifactStore]:
        """Every store that the job's artifacts may be read from, the last one used first. The records of earlier
        versions, and of a backup from before it stored anything, name none: then it may be any."""
        places = job.storages or (*self.earlier, (self.url, self.endpoint))
        return list(dict.fromkeys(self.at(url, endpoint) for url, endpoint in reversed(places)))

    async def stored(self, job: Job) -> tuple[ArtifactStore, Manifest] | None:
        """Return what the job itself has stored so far, and where; None for nothing. Raises StorageError if a store
        that is known to have it can't be read."""
        found: list[tuple[ArtifactStore, Manifest]] = []
        for storage in self.holding(job):
            try:
                manifest = await self.read(storage, job)
            except StorageError:
                if job.storages or storage.name == self.current.name:
                    raise
                continue
            if manifest and manifest.job == job.id:
                found.append((storage, manifest))
                if manifest.ends(job.attempt):
                    return found[-1]
        return max(found, key=lambda each: (each[1].attempt, each[1].status != PARTIAL), default=None)

    async def home(self, job: Job) -> ArtifactStore:
        """Return the store that the job's artifacts are in."""
        holding = self.holding(job)
        found = await self.stored(job) if len(holding) > 1 else None
        return found[0] if found else holding[0]

    async def left(self, job: Job) -> Manifest | None:
        """Return what the job itself has stored so far, or None."""
        found = await self.stored(job)
        return found[1] if found else None

    async def read(self, storage: ArtifactStore, job: Job) -> Manifest | None:
        """Return the manifest in a store. Raises StorageUnavailableError if it does not answer in time; its answer is
        still awaited then, so that tries in a row occupy one thread, and not one each."""
        key = (storage.name, job.run, job.workflow)
        if key not in self.reading:
            work = asyncio.to_thread(storage.manifest, job.run, job.workflow)
            self.reading[key] = asyncio.create_task(work)
            self.reading[key].add_done_callback(lambda task: self._answered(key, task))
        task = self.reading[key]
        await asyncio.wait({task}, timeout=ANSWERS)
        if not task.done():
            raise StorageUnavailableError(f"the storage {storage.name} has not answered for {ANSWERS:g} seconds")
        return task.result()

    def _answered(self, key: tuple[str, str, str], task: asyncio.Task[Manifest | None]) -> None:
        del self.reading[key]
        if not task.cancelled():
            task.exception()  # marks it as retrieved: everybody may have stopped waiting

    async def result(self, job: Job) -> Manifest | None:
        """Return the complete artifacts of a job that has ended although its record does not say so, or None."""
        found = await self.left(job)
        return found if found and found.ends(job.attempt) else None

    async def damage(self, job: Job) -> str | None:
        """Return why a done job's artifacts can't be reused; None if all of them are intact. They are taken for intact
        while the current store does not answer: nobody can use them before it does, and then it is asked again. Raises
        StorageError if the current store can't be read; what lies in an earlier one is then made again."""
        try:
            found = await self.stored(job)
            damage = await asyncio.to_thread(found[0].verify, found[1]) if found else None
        except StorageError as trouble:
            if all(storage.name != self.current.name for storage in self.holding(job)):
                return f"the result of {job.run} can't be read from where it is stored: {trouble.message}"
            if isinstance(trouble, StorageUnavailableError):
                return None
            raise
        if found is None:
            return f"the result of {job.run} is no longer stored"
        return f"the result of {job.run} is damaged: {damage}" if damage else None

    async def manifest(self, job: Job) -> Manifest:
        """Return the manifest of a job's artifacts. Raises StorageError if there is none."""
        found = await self.left(job)
        if found is None:
            hint = f"run {job.workflow} again: dstack run {job.workflow}"
            message = f"the artifacts of {job.workflow} of {job.run} are no longer stored"
            raise StorageError(message, hint=hint, code=ReasonCode.ARTIFACT_MISSING)
        return found

    async def place(
        self, folder: JobFolder, manifests: Iterable[Manifest], *, beside: bool
    ) -> tuple[bool, list[Entry]]:
        """Bring the files of these artifacts to the host from the stores that have them, see `ArtifactStore.place`.
        Return whether some are there now, and those that the launch has to send."""
        stores: dict[str, tuple[ArtifactStore, list[Manifest]]] = {}
        for manifest in manifests:
            storage = await self.home(self.store.jobs.require(manifest.job))
            stores.setdefault(storage.name, (storage, []))[1].append(manifest)
        there, entries = False, dict[str, Entry]()
        for storage, stored in stores.values():
            rest = await storage.place(folder, stored, beside=beside or there)
            there = there or rest is None
            for entry in rest or ():
                entries.setdefault(entry[0].path, entry)
        return there, list(entries.values())

    async def dependencies(self, job: Job) -> list[Manifest]:
        """Return the artifacts of the job's direct dependencies and of its own previous attempt, whose files win.
        Raises StorageError if two dependencies have different content at one path."""
        needed = [self.store.jobs.require(source) for source in job.dependencies.values()]
        found = [await self.manifest(self.store.jobs.require(source.source)) for source in needed]
        manifests = [manifest for manifest in found if manifest.files or manifest.folders]
        if conflict := conflicts(manifests):
            raise StorageError(conflict, code=ReasonCode.ARTIFACT_CONFLICT)
        before = await self.left(job) if job.attempt > 1 else None
        if before is None or not (before.files or before.folders):
            return manifests
        return [before, *without(manifests, before.files)]


def without(manifests: Iterable[Manifest], files: Iterable[File]) -> list[Manifest]:
    """The manifests without what is at the paths of these files, and without those that are empty then."""
    paths = {file.path for file in files}
    rest = [replace(each, files=tuple(file for file in each.files if file.path not in paths)) for each in manifests]
    return [manifest for manifest in rest if manifest.files or manifest.folders]
