"""The artifact store in an S3 bucket. Runners exchange the bytes with the bucket directly, by presigned URLs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from urllib.parse import urlsplit

from msgspec.structs import replace

from dstack.artifacts.files import in_thread, pieces, to_its_end
from dstack.artifacts.s3.bucket import CREDENTIALS, Bucket, ObjectGoneError, parse
from dstack.artifacts.s3.objects import Objects
from dstack.artifacts.s3.transfer import Copies, Uploader
from dstack.artifacts.s3.uploads import Uploads
from dstack.artifacts.store import (
    URL_LIFETIME,
    ContentIndex,
    JobFolder,
    Location,
    PresignedUrls,
    Tell,
    check_paths,
    no_file,
    untold,
)
from dstack.artifacts.tarball import Entry
from dstack.commands.artifacts.fetch_dependencies import gather
from dstack.commands.artifacts.upload import abandon, reach
from dstack.commands.host import ask
from dstack.errors import CommandError, StorageError, StorageUnavailableError, UsageError
from dstack.model.job.manifest import MANIFEST, File, Manifest, decode, encode, objection, shown

ABANDON = 120.0
"""Seconds for a host to cancel an upload."""
REACH = 60.0
"""Seconds for a host to get an answer from the storage."""

log = logging.getLogger("dstack.artifacts")


class S3Store:
    """Implements `ArtifactStore` at `s3://bucket/prefix/<run>/<workflow>/<path>`, with `manifest.json` beside a job's
    files, written last. It keeps no state: it asks S3 how far an upload is, and the index which objects may have a
    content. URLs are valid for `expires` seconds."""

    def __init__(self, url: str, endpoint: str | None, index: ContentIndex, *, expires: int = URL_LIFETIME) -> None:
        name, self.prefix = parse(url)
        self.url = f"s3://{name}/{self.prefix}".rstrip("/")
        self.bucket = Bucket(name, endpoint)
        self.index = index
        self.expires = expires

    @classmethod
    def at(cls, location: Location) -> S3Store:
        """Open the store at s3://bucket/prefix. Raises UsageError for any other URL."""
        return cls(location.url, location.endpoint, location.index, expires=location.url_lifetime)

    @property
    def name(self) -> str:
        return f"{self.bucket.endpoint} {self.url}" if self.bucket.endpoint else self.url

    def objects(self, run: str, workflow: str) -> Objects:
        """Return the objects of a job."""
        return Objects(self.bucket, f"{self.prefix}/{run}/{workflow}/".lstrip("/"))

    def check(self) -> None:
        if "@" in urlsplit(self.bucket.endpoint or "").netloc:
            raise UsageError("the endpoint's URL has a login in it, which no S3 store takes", hint=CREDENTIALS)
        self.bucket.check(f"{self.prefix}/.dstack-check".lstrip("/"))

    def absent(self) -> str | None:
        """Return None: a bucket that is gone refuses every request."""
        return None

    async def sweep(self, before: float) -> None:
        """Do nothing: an unfinished upload can be resumed."""

    async def reach(self, folder: JobFolder) -> None:
        url = (await self.urls(folder.run, folder.workflow, ["."]))[0]
        try:
            await ask(folder.host, reach(folder.context, url), timeout=REACH)
        except CommandError as error:
            raise StorageUnavailableError(
                f"{folder.runner} can't reach the storage {self.name}, so the job's artifacts would be lost:"
                f" {error.stderr.strip()}",
                hint="let the machine connect to it, or choose another storage: dstack config --storage URL",
            ) from error

    async def collect(self, folder: JobFolder, files: Sequence[File], tell: Tell = untold) -> None:
        """Have the host upload what the bucket lacks. It continues by itself, also while the server is down."""
        uploads = Uploads(self.objects(folder.run, folder.workflow), self.expires)
        copies = self._copies(folder.run, folder.workflow)
        await Uploader(folder, uploads, copies, tell).run([file for file in files if file.link is None])

    async def abandon(self, folder: JobFolder) -> None:
        await ask(folder.host, abandon(folder.context, folder.attempt), timeout=ABANDON)

    async def copy(self, run: str, workflow: str, files: Sequence[File]) -> list[File]:
        """Have S3 copy what the bucket has elsewhere. Return the files that it lacks as far as is known."""
        copies = self._copies(run, workflow)
        left = await copies.make([file for file in files if file.link is None])
        return [file for file in left if not copies.recorded(file)]

    @in_thread
    def commit(self, manifest: Manifest) -> Manifest:
        """Write the manifest, with ETags, once all its files are there. Removes what an earlier commit left."""
        check_paths(manifest)
        objects = self.objects(manifest.run, manifest.workflow)
        listed = objects.listed()
        files = []
        for file in manifest.files:
            if file.link is None:
                stored = listed.pop(objects.key(file.path), None)
                if stored is None or stored.size != file.size:
                    raise StorageError(f"{shown(file.path)} is not in the store")
                file = replace(file, etag=stored.etag)
            files.append(file)
        key = objects.key(MANIFEST)
        listed.pop(key, None)
        objects.abort()
        objects.delete(listed)
        written = replace(manifest, files=tuple(files))
        self.bucket.call("put_object", Key=key, Body=encode(written), ContentType="application/json")
        return written

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        try:
            manifest = decode(b"".join(self.bucket.read(self.objects(run, workflow).key(MANIFEST))))
        except (ObjectGoneError, ValueError):
            return None
        return manifest if (manifest.run, manifest.workflow) == (run, workflow) else None

    def verify(self, manifest: Manifest) -> str | None:
        """Costs one request per thousand files."""
        objects = self.objects(manifest.run, manifest.workflow)
        listed = objects.listed()
        for file in manifest.files:
            if file.link is not None:
                continue
            stored = listed.get(objects.key(file.path))
            if stored is None:
                return f"{shown(file.path)} is gone"
            if stored.size != file.size:
                return f"{shown(file.path)} has {stored.size} bytes instead of {file.size}"
            if stored.etag != file.etag:
                return f"{shown(file.path)} no longer matches its checksum"
        return None

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        return pieces(self._read(run, workflow, path, offset))

    async def presign(self, run: str, workflow: str, paths: Sequence[str]) -> PresignedUrls | None:
        return PresignedUrls(await self.urls(run, workflow, paths), self.expires)

    async def place(self, folder: JobFolder, manifests: Sequence[Manifest], *, beside: bool) -> list[Entry] | None:
        """Have the host fetch the files from the bucket. Returns them if it can't."""
        files: dict[str, File] = {}
        urls: dict[str, str] = {}
        for manifest in manifests:
            files.update({file.path: file for file in manifest.files if file.path not in files})
            paths = [file.path for file in manifest.files if file.link is None]
            urls.update(zip(paths, await self.urls(manifest.run, manifest.workflow, paths), strict=True))
        ordered = sorted(files.values(), key=lambda file: file.path)
        try:
            await ask(folder.host, gather(folder.context, folder.attempt, ordered, urls, beside=beside))
        except CommandError as error:
            log.warning("job %s: %s; the server sends the artifacts itself", folder.job, error.message)
            return self.entries(manifests)
        return None

    def entries(self, manifests: Sequence[Manifest]) -> list[Entry]:
        """Return all their files, one for each path."""
        files: dict[str, Entry] = {}
        for manifest in manifests:
            for file in manifest.files:
                files.setdefault(file.path, (file, partial(self._read, manifest.run, manifest.workflow, file.path)))
        return list(files.values())

    @in_thread
    def urls(self, run: str, workflow: str, paths: Sequence[str]) -> list[str]:
        """Return URLs at which anyone can read these files until they expire."""
        signer, objects = self.bucket.signer(), self.objects(run, workflow)
        return [signer.url("GET", objects.key(path), self.expires) for path in paths]

    @in_thread
    def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Return the bytes of unfinished uploads, too."""
        objects = self.objects(run, workflow)
        listed = objects.listed()
        if objects.key(MANIFEST) in listed:
            return 0
        parts = [part for key, upload in dict(objects.uploads()).items() for part in objects.parts(key, upload)]
        if not dry_run:
            objects.delete(listed)
            objects.abort()
        return sum(stored.size for stored in listed.values()) + sum(int(part["Size"]) for part in parts)

    async def unused(self, before: float, *, dry_run: bool = False) -> int:
        """Return 0: every object belongs to a job."""
        return 0

    async def remove(self, run: str, workflow: str) -> None:
        """Remove the job's artifacts, the manifest first."""
        objects = self.objects(run, workflow)
        self.index.forget_below(self.name, objects.prefix)
        await to_its_end(lambda: objects.delete([objects.key(MANIFEST)]))
        await to_its_end(lambda: objects.delete(objects.listed()))
        await to_its_end(objects.abort)

    def _copies(self, run: str, workflow: str) -> Copies:
        return Copies(self.name, self.objects(run, workflow), self.index)

    def _read(self, run: str, workflow: str, path: str, offset: int = 0) -> Iterator[bytes]:
        if objection(path) is not None:
            raise no_file(run, workflow, path)
        key = self.objects(run, workflow).key(path)
        try:
            if offset and offset >= self.bucket.call("head_object", Key=key)["ContentLength"]:
                return
            yield from self.bucket.read(key, **({"Range": f"bytes={offset}-"} if offset else {}))
        except ObjectGoneError as error:
            raise no_file(run, workflow, path) from error
