"""The artifact store in an S3 bucket. Runners exchange the bytes with the bucket directly, by presigned URLs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import msgspec

from dstack.artifacts.files import pieces, to_its_end
from dstack.artifacts.s3.bucket import Bucket, ObjectGoneError, parse
from dstack.artifacts.s3.copies import Copies
from dstack.artifacts.s3.objects import Objects
from dstack.artifacts.s3.transfer import Uploader, fetched, reached
from dstack.artifacts.s3.uploads import Uploads
from dstack.artifacts.store import URL_LIFETIME, ContentIndex, JobFolder, Location, PresignedUrls, Tar
from dstack.artifacts.tarball import BLOCK, tar
from dstack.commands.artifacts.upload import abandon
from dstack.commands.host import ask
from dstack.errors import NotFoundError, StorageError
from dstack.model.job.manifest import MANIFEST, File, Manifest, decode, encode, objection, problem, shown

ABANDON = 120.0
"""Seconds for a host to cancel an upload."""


class S3Store:
    """`s3://bucket/prefix/<run>/<workflow>/<path>`, with `manifest.json` beside a job's files, written last.

    It keeps no state: it asks S3 how far an upload is, and the index which objects may have a content. URLs are valid
    for `expires` seconds.
    """

    def __init__(self, url: str, endpoint: str | None, index: ContentIndex, *, expires: int = URL_LIFETIME) -> None:
        name, prefix = parse(url)
        self.url = f"s3://{name}/{prefix}".rstrip("/")
        self.bucket = Bucket(name, endpoint)
        self.index = index
        self.expires = expires
        self.objects = Objects(self.bucket, f"{prefix}/" if prefix else "")
        self.uploads = Uploads(self.objects, expires)

    @classmethod
    def at(cls, location: Location) -> S3Store:
        """Open the store at s3://bucket/prefix. Raises UsageError for any other URL."""
        return cls(location.url, location.endpoint, location.index, expires=location.url_lifetime)

    @property
    def name(self) -> str:
        """The store's identity: no other store has this name."""
        return f"{self.bucket.endpoint} {self.url}" if self.bucket.endpoint else self.url

    def check(self) -> None:
        """Raise UsageError unless the store can be used."""
        self.bucket.check(f"{self.objects.prefix}.dstack-check")

    def absent(self) -> str | None:
        """Return None: a bucket that is gone refuses every request."""
        return None

    def key(self, run: str, workflow: str, path: str) -> str:
        """Return the key of a file's object: see Objects."""
        return self.objects.key(run, workflow, path)

    async def reach(self, folder: JobFolder) -> None:
        """Raise HostError unless the host gets an answer from the bucket."""
        url = (await self.urls(folder.run, folder.workflow, ["."]))[0]
        await reached(folder, url, self.name)

    async def collect(
        self, folder: JobFolder, files: Sequence[File], tell: Callable[[int], None] = lambda left: None
    ) -> None:
        """Have the host upload what the bucket lacks. It continues by itself, also while the server is down."""
        copies = self._copies(folder.run, folder.workflow)
        await Uploader(folder, self.uploads, copies, tell).run([file for file in files if file.link is None])

    async def abandon(self, folder: JobFolder) -> None:
        """Cancel the host's upload."""
        await ask(folder.host, abandon(folder.context, folder.attempt), timeout=ABANDON)

    async def copy(self, run: str, workflow: str, files: Sequence[File]) -> list[File]:
        """Have S3 copy what the bucket has elsewhere. Return the files that it lacks as far as is known."""
        copies = self._copies(run, workflow)
        left = await copies.make([file for file in files if file.link is None])
        return [file for file in left if not copies.recorded(file)]

    async def commit(self, manifest: Manifest) -> Manifest:
        """Write the manifest, with ETags, once all its files are there. Removes what an earlier commit left."""
        return await to_its_end(lambda: self._commit(manifest))

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        """Return the job's manifest, or None if there is none that can be read."""
        try:
            body = self.bucket.call("get_object", Key=self.key(run, workflow, MANIFEST))["Body"]
            with contextlib.closing(body):
                manifest = decode(b"".join(self._blocks(body)))
        except (ObjectGoneError, ValueError):
            return None
        return manifest if (manifest.run, manifest.workflow) == (run, workflow) else None

    def verify(self, manifest: Manifest) -> str | None:
        """Return what is damaged or gone, in a few words, or None. Costs one request per thousand files."""
        listed = self.objects.listed(manifest.run, manifest.workflow)
        for file in manifest.files:
            if file.link is not None:
                continue
            stored = listed.get(self.key(manifest.run, manifest.workflow, file.path))
            if stored is None:
                return f"{shown(file.path)} is gone"
            if stored.size != file.size:
                return f"{shown(file.path)} has {stored.size} bytes instead of {file.size}"
            if stored.etag != file.etag:
                return f"{shown(file.path)} no longer matches its checksum"
        return None

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """Return a stored file's bytes from `offset` on. Raises NotFoundError if the job has no such file."""
        return pieces(self._read(run, workflow, path, offset))

    def tar(self, manifests: Sequence[Manifest]) -> AsyncIterator[bytes]:
        """Return a tar stream of all their files. It ends in StorageError at a file that does not match its
        manifest."""
        files: dict[str, tuple[File, Callable[[], Iterator[bytes]]]] = {}
        for manifest in manifests:
            for file in manifest.files:
                files.setdefault(file.path, (file, self._reader(manifest, file)))
        return pieces(tar(files.values()))

    async def remove(self, run: str, workflow: str) -> None:
        """Remove the job's artifacts, the manifest first."""
        self.index.forget_below(self.name, self.key(run, workflow, ""))
        await to_its_end(lambda: self._remove(run, workflow))

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Remove what a job without a manifest left, once nothing adds to it. Return its bytes, unfinished uploads
        included."""
        return await to_its_end(lambda: self._clear(run, workflow, dry_run))

    async def sweep(self) -> None:
        """Do nothing: an unfinished upload can be resumed."""

    async def unused(self, before: float, *, dry_run: bool = False) -> int:
        """Return 0: every object belongs to a job."""
        return 0

    async def presign(self, run: str, workflow: str, paths: Sequence[str]) -> PresignedUrls | None:
        """Return URLs at which anyone can read these files until they expire."""
        return PresignedUrls(await self.urls(run, workflow, paths), self.expires)

    async def place(self, folder: JobFolder, manifests: Sequence[Manifest], *, beside: bool) -> Tar | None:
        """Have the host fetch the files from the bucket. Returns the tar if it can't."""
        files: dict[str, File] = {}
        urls: dict[str, str] = {}
        for manifest in manifests:
            files.update({file.path: file for file in manifest.files if file.path not in files})
            paths = [file.path for file in manifest.files if file.link is None]
            urls.update(zip(paths, await self.urls(manifest.run, manifest.workflow, paths), strict=True))
        ordered = sorted(files.values(), key=lambda file: file.path)
        return None if await fetched(folder, ordered, urls, beside=beside) else lambda: self.tar(manifests)

    async def urls(self, run: str, workflow: str, paths: Sequence[str]) -> list[str]:
        """Return URLs at which anyone can read these files until they expire."""
        return await to_its_end(lambda: self._urls(run, workflow, paths))

    def _urls(self, run: str, workflow: str, paths: Sequence[str]) -> list[str]:
        signer = self.bucket.signer()
        return [signer.url("GET", self.key(run, workflow, path), self.expires) for path in paths]

    def _copies(self, run: str, workflow: str) -> Copies:
        return Copies(self.name, self.objects, self.index, run, workflow)

    def _commit(self, manifest: Manifest) -> Manifest:
        if why := problem(manifest.files):
            raise StorageError(f"the artifacts of {manifest.workflow} can't be stored: {why}")
        listed = self.objects.listed(manifest.run, manifest.workflow)
        files = []
        for file in manifest.files:
            if file.link is None:
                stored = listed.pop(self.key(manifest.run, manifest.workflow, file.path), None)
                if stored is None or stored.size != file.size:
                    raise StorageError(f"{shown(file.path)} is not in the store")
                file = msgspec.structs.replace(file, etag=stored.etag)
            files.append(file)
        key = self.key(manifest.run, manifest.workflow, MANIFEST)
        listed.pop(key, None)
        self.objects.abort(manifest.run, manifest.workflow)
        self.objects.delete(listed)
        written = msgspec.structs.replace(manifest, files=tuple(files))
        self.bucket.call("put_object", Key=key, Body=encode(written), ContentType="application/json")
        return written

    def _remove(self, run: str, workflow: str) -> None:
        manifest = self.key(run, workflow, MANIFEST)
        self.objects.delete([manifest])
        self.objects.delete(key for key in self.objects.listed(run, workflow) if key != manifest)
        self.objects.abort(run, workflow)

    def _clear(self, run: str, workflow: str, dry_run: bool) -> int:
        listed = self.objects.listed(run, workflow)
        if self.key(run, workflow, MANIFEST) in listed:
            return 0
        uploads = self.objects.uploads(run, workflow)
        parts = [part for key, upload in uploads.items() for part in self.objects.parts(key, upload)]
        if not dry_run:
            self.objects.delete(listed)
            self.objects.abort(run, workflow)
        return sum(stored.size for stored in listed.values()) + sum(int(part["Size"]) for part in parts)

    def _reader(self, manifest: Manifest, file: File) -> Callable[[], Iterator[bytes]]:
        return lambda: self._read(manifest.run, manifest.workflow, file.path, 0)

    def _read(self, run: str, workflow: str, path: str, offset: int) -> Iterator[bytes]:
        if objection(path) is not None:
            raise NotFoundError(f"{run}/{workflow} has no file {shown(path)}", hint=f"dstack artifacts list {run}")
        key = self.key(run, workflow, path)
        try:
            if offset and offset >= self.bucket.call("head_object", Key=key)["ContentLength"]:
                return
            extra = {"Range": f"bytes={offset}-"} if offset else {}
            body = self.bucket.call("get_object", Key=key, **extra)["Body"]
        except ObjectGoneError as error:
            raise NotFoundError(
                f"{run}/{workflow} has no file {shown(path)}", hint=f"dstack artifacts list {run}"
            ) from error
        with contextlib.closing(body):
            yield from self._blocks(body)

    def _blocks(self, body: Any) -> Iterator[bytes]:
        from dstack.artifacts.s3.bucket import trouble

        with trouble(self.bucket.name, self.bucket.endpoint):
            yield from body.iter_chunks(BLOCK)
