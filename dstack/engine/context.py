"""What the parts of the engine share."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile

from msgspec.structs import replace

from dstack.artifacts.folder import FolderStore
from dstack.artifacts.store import Store as Storage
from dstack.commands.command import Stdin
from dstack.engine.bells import Bells
from dstack.engine.machines import Machines
from dstack.errors import StorageError, UsageError
from dstack.model.job import Job
from dstack.model.manifest import Manifest
from dstack.model.paths import ServerLayout
from dstack.repo.mirror import Mirror
from dstack.store import Store


@dataclass
class Context:
    """The store, the machines, and who is told of changes. `shipping` has a lock for each runner and
    repository: a pack is sent once, however many jobs need it. So has `pulling` for each runner and image."""

    layout: ServerLayout
    store: Store
    machines: Machines
    bells: Bells
    pulling: dict[tuple[str, str], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    shipping: dict[tuple[str, str], asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def storage_url(self) -> str:
        """Where artifacts are stored now: a folder."""
        return self.store.settings.get("storage") or str(self.layout.artifacts)

    @property
    def storage(self) -> Storage:
        """The store of artifacts."""
        return FolderStore(Path(self.storage_url))

    def use_storage(self, url: str) -> None:
        """Store artifacts there from now on; raises UsageError for a place that can't be written. What was stored
        before stays where it is, and is found again when the setting comes back."""
        folder = Path(url)
        if "://" in url or not folder.is_absolute():
            raise UsageError(f"'{url}' can't be the storage", hint="dstack config --storage /absolute/path/of/a/folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            TemporaryFile(dir=folder).close()
        except OSError as error:
            raise UsageError(
                f"{folder} can't be the storage: {error.strerror}", hint="choose another folder"
            ) from error
        self.store.settings.set("storage", url)

    def damage(self, job: Job) -> str | None:
        """What keeps a done job's artifacts from being used again; None when they are all there."""
        manifest = self.storage.manifest(job.run, job.workflow)
        if manifest is None or manifest.job != job.id:
            return f"the result of {job.run} is no longer stored"
        damage = self.storage.verify(manifest)
        return f"the result of {job.run} is damaged: {damage}" if damage else None

    def mirror(self, repo: str) -> Mirror:
        """The server's copy of a repository's objects."""
        return Mirror(self.layout.mirror(repo))

    def manifest(self, job: Job) -> Manifest:
        """What a job left, or StorageError."""
        found = self.storage.manifest(job.run, job.workflow)
        if found is None:
            raise StorageError(f"the artifacts of {job.workflow} of {job.run} are gone", hint="dstack run --no-cache")
        return found

    def resumed(self, job: Job, manifests: list[Manifest]) -> list[Manifest]:
        """With what the job's attempt before this one left, in place of what others made at the same paths."""
        before = self.storage.manifest(job.run, job.workflow) if job.attempt > 1 else None
        if before is None or before.job != job.id or not before.files:
            return manifests
        paths = {file.path for file in before.files}
        others = [
            replace(each, files=tuple(file for file in each.files if file.path not in paths)) for each in manifests
        ]
        return [*(each for each in others if each.files), before]

    async def dependencies(self, job: Job) -> Stdin:
        """A tar stream of what the job's direct dependencies made, and its own attempt before this one, which wins;
        raises StorageError when two dependencies give one path different bytes."""
        sources = [self.store.jobs.require(source) for source in job.dependencies.values()]
        manifests = [self.manifest(source) for source in sources]
        manifests = [manifest for manifest in manifests if manifest.files]
        conflict = self.storage.conflicts(manifests)
        if conflict:
            raise StorageError(conflict)
        manifests = self.resumed(job, manifests)
        if not manifests:
            return b""

        def opened() -> AsyncIterator[bytes]:
            return self.storage.tar(manifests)

        return opened
