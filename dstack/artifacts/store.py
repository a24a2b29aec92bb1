"""The protocol of all artifact stores, and what the server lends to one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dstack.artifacts.tarball import Entry
from dstack.commands.host import Host
from dstack.errors import NotFoundError, StorageError
from dstack.model.job.manifest import File, Manifest, problem, shown
from dstack.model.job.pieces import Stored
from dstack.model.runner.host_context import HostContext

URL_LIFETIME = 12 * 3600
"""Default seconds for which presigned URLs are valid: for so long, runners can upload while the server is down."""
LONGEST_URL_LIFETIME = 7 * 24 * 3600
"""Most seconds that S3 accepts."""
STORAGES = "use a bucket or absolute path: dstack config --storage s3://bucket/prefix, or --storage /folder"
"""The hint for a URL that is not a storage."""


class Tell(Protocol):
    """Gets how many bytes are left to store, and what keeps the next ones from arriving, "" if nothing does."""

    def __call__(self, left: int, trouble: str = "") -> None: ...


def untold(left: int, trouble: str = "") -> None:
    """Tell nobody."""


class ContentIndex(Protocol):
    """Which object of a store has which content. It may be outdated, so check an object before using it."""

    def add(self, storage: str, objects: Iterable[tuple[str, Stored]]) -> None:
        """Record objects, given as pairs of sha256 and object."""

    def find(self, storage: str, sha256: str, size: int) -> list[Stored]:
        """Return objects with this content."""

    def forget(self, storage: str, keys: Iterable[str]) -> None:
        """Forget these objects: they were removed or have changed."""

    def forget_below(self, storage: str, prefix: str) -> None:
        """Forget all objects whose key starts with `prefix`."""


@dataclass(frozen=True)
class Location:
    """Where a store is. `index` is for stores that can't find content by themselves; `url_lifetime` is in seconds."""

    url: str
    endpoint: str | None
    index: ContentIndex
    url_lifetime: int


@dataclass(frozen=True)
class JobFolder:
    """A job's folder on its host. `runner` is the host's name in messages; `tree`, below it, has the job's files."""

    job: str
    run: str
    workflow: str
    attempt: str
    runner: str
    host: Host
    context: HostContext
    tree: str


@dataclass(frozen=True)
class PresignedUrls:
    """URLs at which anyone can read files, valid for `lifetime` seconds."""

    urls: list[str]
    lifetime: int


class ArtifactStore(Protocol):
    """Keeps the artifacts of jobs at `<run>/<workflow>/<path>`, with `manifest.json` beside them, written last.

    A store drives the host that it is given, so that the files take the shortest way. Every step can be cancelled, and
    repeated after that or after a crash; it continues where the last one ended. Methods raise StorageError; those that
    take a JobFolder also raise HostError.
    """

    @property
    def url(self) -> str:
        """Where the store is, in its shortest form."""

    @property
    def name(self) -> str:
        """The store's identity: no other store has this name."""

    def check(self) -> None:
        """Raise UsageError unless the store can be used."""

    def absent(self) -> str | None:
        """Return why the store as a whole is gone, in a few words, or None."""

    async def sweep(self, before: float) -> None:
        """Remove what crashes left incomplete: all that has not changed since `before` (seconds since the epoch)."""

    async def reach(self, folder: JobFolder) -> None:
        """Raise StorageUnavailableError unless the host can connect to the store, if it has to."""

    async def collect(self, folder: JobFolder, files: Sequence[File], tell: Tell = untold) -> None:
        """Bring the contents of these files from the host into the store."""

    async def abandon(self, folder: JobFolder) -> None:
        """Stop what the host still does for a collection."""

    async def copy(self, run: str, workflow: str, files: Sequence[File]) -> list[File]:
        """Give the job the contents that the store already has, without its host. Return the files that it lacks."""

    async def commit(self, manifest: Manifest) -> Manifest:
        """Put all files at their paths, then write the manifest and return it as written. Replaces an earlier commit.
        Raises StorageError for paths that can't be stored, and if a content is missing."""

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        """Return the job's manifest, or None if there is none that can be read."""

    def verify(self, manifest: Manifest) -> str | None:
        """Return what is damaged or gone, in a few words, or None. Hashes only files that were touched."""

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Return a stored file's bytes from `offset` on. Raises NotFoundError if the job has no such file."""

    async def presign(self, run: str, workflow: str, paths: Sequence[str]) -> PresignedUrls | None:
        """Return a URL for each of these files, or None if the store has no URLs."""

    async def place(self, folder: JobFolder, manifests: Sequence[Manifest], *, beside: bool) -> list[Entry] | None:
        """Bring all their files to the host, for a job that depends on them. `beside`: other files are there already.
        Returns None once they are there; otherwise, the launch has to send what is returned. The launch itself makes
        the folders of all manifests, empty ones too, and sets their modes."""

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Remove what a job without a manifest left, once nothing adds to it. Return its bytes."""

    async def unused(self, before: float, *, dry_run: bool = False) -> int:
        """Remove contents that arrived before a time (seconds since the epoch) and that no job has, as abandoned
        collections leave them. Return their bytes."""

    async def remove(self, run: str, workflow: str) -> None:
        """Remove the job's artifacts, and the contents that nothing else uses."""


def check_paths(manifest: Manifest) -> None:
    """Raise StorageError if these files can't be in one folder."""
    if why := problem(manifest.files, manifest.folders):
        raise StorageError(f"the artifacts of {manifest.workflow} can't be stored: {why}")


def no_file(run: str, workflow: str, path: str) -> NotFoundError:
    """Return the error for a file that a job has not stored."""
    return NotFoundError(f"{run}/{workflow} has no file {shown(path)}", hint=f"dstack artifacts list {run}")
