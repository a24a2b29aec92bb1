"""What the parts of the engine share."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from msgspec.structs import replace

from dstack.artifacts.folder.store import FolderStore
from dstack.artifacts.s3.presign import EXPIRES
from dstack.artifacts.s3.store import S3Store
from dstack.commands.command import Stdin
from dstack.engine.events import Events
from dstack.engine.fleet.runners import Fleet
from dstack.errors import StorageError, UsageError
from dstack.executors.docker.image_pulls import ImagePulls
from dstack.mirror.mirror import Mirror
from dstack.model.job.job import Job
from dstack.model.job.manifest import Manifest
from dstack.model.job.reasons import ReasonCode
from dstack.model.paths import ServerLayout
from dstack.store.store import Store


@dataclass
class Context:
    """The store, the fleet, and the events. `shipping` has one lock per runner and repository, so that a pack is sent
    once however many jobs need it; `pulls` has the image pulls in progress, and `clearing` one lock per ended job. On a
    runner in `unsure`, a job that was aborted while the runner did not answer may still be running. Presigned URLs are
    valid for `url_lifetime` seconds."""

    layout: ServerLayout
    store: Store
    fleet: Fleet
    events: Events
    pulls: ImagePulls = field(default_factory=ImagePulls)
    shipping: dict[tuple[str, str], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    buckets: dict[tuple[str, str | None], S3Store] = field(default_factory=dict)
    clearing: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    unsure: set[str] = field(default_factory=set)
    spares: set[asyncio.Task[None]] = field(default_factory=set)
    reached: set[tuple[str, str]] = field(default_factory=set)
    url_lifetime: int = EXPIRES

    @property
    def storage_url(self) -> str:
        """Where artifacts are stored now: a folder, or s3://bucket/prefix."""
        return self.store.settings.get("storage") or str(self.layout.artifacts)

    @property
    def endpoint_url(self) -> str | None:
        """The storage's S3 endpoint; None for AWS and for a folder."""
        return self.store.settings.get("endpoint_url") or None

    @property
    def storage(self) -> FolderStore | S3Store:
        """The artifact store in use now."""
        return self.storage_at(self.storage_url, self.endpoint_url)

    def storage_at(self, url: str, endpoint: str | None) -> FolderStore | S3Store:
        """The store in a folder, or at s3://bucket/prefix."""
        return self.bucket(url, endpoint) if url.startswith("s3://") else FolderStore(Path(url))

    def bucket(self, url: str, endpoint: str | None) -> S3Store:
        """A store on S3; its connections are kept."""
        return self.buckets.setdefault((url, endpoint), S3Store(url, endpoint, expires=self.url_lifetime))

    async def use_storage(self, url: str, endpoint: str | None) -> None:
        """Store artifacts there from now on. Raises UsageError if it can't be written to. Earlier artifacts stay where
        they are, and can be used again once the setting is changed back."""
        if url.startswith("s3://"):
            found = self.bucket(url, endpoint)
            try:
                await asyncio.to_thread(found.check)
            except UsageError:
                del self.buckets[url, endpoint]  # the next try may come with other credentials
                raise
            url = found.url
        else:
            check_folder(url, endpoint)
        with self.store.database.transaction():
            self.store.settings.set("storage", url)
            self.store.settings.set("endpoint_url", endpoint or "")

    async def damage(self, job: Job) -> str | None:
        """Return why a done job's artifacts can't be reused; None if all of them are intact."""
        storage = self.storage
        manifest = await asyncio.to_thread(storage.manifest, job.run, job.workflow)
        if manifest is None or manifest.job != job.id:
            return f"the result of {job.run} is no longer stored"
        damage = await asyncio.to_thread(storage.verify, manifest)
        return f"the result of {job.run} is damaged: {damage}" if damage else None

    def mirror(self, repo: str) -> Mirror:
        """The server's copy of a repository's objects."""
        return Mirror(self.layout.mirror(repo))

    async def manifest(self, job: Job) -> Manifest:
        """Return the manifest of a job's artifacts. Raises StorageError if there is none."""
        found = await asyncio.to_thread(self.storage.manifest, job.run, job.workflow)
        if found is None:
            hint = f"run {job.workflow} again: dstack run {job.workflow}"
            message = f"the artifacts of {job.workflow} of {job.run} are no longer stored"
            raise StorageError(message, hint=hint, code=ReasonCode.ARTIFACT_MISSING)
        return found

    async def resumed(self, job: Job, manifests: list[Manifest]) -> list[Manifest]:
        """Add what the job's previous attempt left, which replaces other files at the same paths."""
        storage = self.storage
        before = await asyncio.to_thread(storage.manifest, job.run, job.workflow) if job.attempt > 1 else None
        if before is None or before.job != job.id or not before.files:
            return manifests
        paths = {file.path for file in before.files}
        others = [
            replace(each, files=tuple(file for file in each.files if file.path not in paths)) for each in manifests
        ]
        return [*(each for each in others if each.files), before]

    async def dependencies(self, job: Job) -> list[Manifest]:
        """Return the artifacts of the job's direct dependencies and of its own previous attempt, whose files win.
        Raises StorageError if two dependencies have different content at one path."""
        needed = [self.store.jobs.require(source) for source in job.dependencies.values()]
        sources = [self.store.jobs.require(source.source) for source in needed]
        found = [await self.manifest(source) for source in sources]
        manifests = [manifest for manifest in found if manifest.files]
        conflict = self.storage.conflicts(manifests)
        if conflict:
            raise StorageError(conflict, code=ReasonCode.ARTIFACT_CONFLICT)
        return await self.resumed(job, manifests)

    def tar(self, manifests: Sequence[Manifest]) -> Stdin:
        """Their files as a tar stream, for the launch of a job."""
        if not manifests:
            return b""

        def opened() -> AsyncIterator[bytes]:
            return self.storage.tar(manifests)

        return opened


def check_folder(url: str, endpoint: str | None) -> None:
    """Raise UsageError unless the folder can be used as storage."""
    folder = Path(url)
    hint = "use a bucket or absolute path: dstack config --storage s3://bucket/prefix, or --storage /folder"
    if endpoint:
        raise UsageError(f"an endpoint needs a bucket, and '{url}' is not one", hint=hint)
    if "://" in url or not folder.is_absolute():
        raise UsageError(f"'{url}' is not a valid storage", hint=hint)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UsageError(f"{folder} can't be the storage: {error.strerror}", hint="choose another folder") from error
