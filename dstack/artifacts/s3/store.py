"""The artifact store in an S3 bucket. Runners exchange the bytes with the bucket directly, by presigned URLs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dstack.artifacts.files import pieces, to_its_end
from dstack.artifacts.s3.bucket import Bucket, ObjectGoneError, parse
from dstack.artifacts.s3.objects import Objects, plain
from dstack.artifacts.s3.presign import EXPIRES
from dstack.artifacts.s3.uploads import Uploading, Uploads
from dstack.artifacts.tarball import BLOCK, tar
from dstack.errors import NotFoundError, StorageError
from dstack.model.job import manifest as manifest_module
from dstack.model.job.manifest import MANIFEST, File, Manifest, decode, encode, objection, problem, shown
from dstack.model.job.pieces import Stored, Sums

COPY = 5 * 1024**3
"""The largest object that one request can copy, in bytes."""


class S3Store:
    """`s3://bucket/prefix/<run>/<workflow>/<path>`, with `manifest.json` beside a job's files, written last.

    It keeps no state: it asks S3 how far an upload is. URLs are valid for `expires` seconds.
    """

    def __init__(self, url: str, endpoint: str | None = None, *, expires: int = EXPIRES) -> None:
        name, prefix = parse(url)
        self.url = f"s3://{name}/{prefix}".rstrip("/")
        self.bucket = Bucket(name, endpoint)
        self.expires = expires
        self._objects = Objects(self.bucket, f"{prefix}/" if prefix else "")

    @property
    def name(self) -> str:
        """The store's identity: no other store has this name."""
        return f"{self.bucket.endpoint} {self.url}" if self.bucket.endpoint else self.url

    def check(self) -> None:
        """Raise UsageError unless the store can be used."""
        self.bucket.check(f"{self._objects.prefix}.dstack-check")

    def key(self, run: str, workflow: str, path: str) -> str:
        """Return the key of a file's object: see Objects."""
        return self._objects.key(run, workflow, path)

    async def plan(
        self,
        run: str,
        workflow: str,
        files: Sequence[File],
        sums: Mapping[str, Sums],
        *,
        sent: frozenset[tuple[str, int | None]] = frozenset(),
        known: Mapping[str, str] | None = None,
    ) -> Uploading:
        """Return which of these regular files have arrived, and which pieces are still to send: see Uploads."""
        uploads = Uploads(self._objects, self.expires)
        return await to_its_end(lambda: uploads.plan(run, workflow, files, sums, sent, known or {}))

    async def copy(self, run: str, workflow: str, file: File, source: Stored) -> str | None:
        """Make the file a copy of an object with the same content. Return its ETag, or None if that object has
        changed."""
        return await to_its_end(lambda: self._copy(self.key(run, workflow, file.path), source))

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
        listed = self._objects.listed(manifest.run, manifest.workflow)
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

    def conflicts(self, manifests: Sequence[Manifest]) -> str | None:
        """Return why one job can't have all of these, or None: two of them give one path different bytes."""
        return manifest_module.conflicts(manifests)

    async def remove(self, run: str, workflow: str) -> None:
        """Remove the job's artifacts, the manifest first."""
        await to_its_end(lambda: self._remove(run, workflow))

    async def clear(self, run: str, workflow: str, *, dry_run: bool = False) -> int:
        """Remove what a job without a manifest left, once nothing adds to it. Return its bytes, unfinished uploads
        included."""
        return await to_its_end(lambda: self._clear(run, workflow, dry_run))

    async def sweep(self) -> None:
        """Do nothing: an unfinished upload can be resumed."""

    async def urls(self, run: str, workflow: str, paths: Sequence[str]) -> list[str]:
        """Return URLs at which anyone can read these files until they expire."""
        return await to_its_end(lambda: self._urls(run, workflow, paths))

    def _urls(self, run: str, workflow: str, paths: Sequence[str]) -> list[str]:
        signer = self.bucket.signer()
        return [signer.url("GET", self.key(run, workflow, path), self.expires) for path in paths]

    def _copy(self, key: str, source: Stored) -> str | None:
        origin = {"Bucket": self.bucket.name, "Key": source.key}
        try:
            head = self.bucket.call("head_object", Key=source.key)
            if (head["ContentLength"], plain(head["ETag"])) != (source.size, source.etag):
                return None
            if source.size > COPY:
                self.bucket.call("copy", CopySource=origin, Key=key)
            else:
                self.bucket.call("copy_object", CopySource=origin, Key=key, CopySourceIfMatch=head["ETag"])
        except ObjectGoneError:
            return None
        return plain(self.bucket.call("head_object", Key=key)["ETag"])

    def _commit(self, manifest: Manifest) -> Manifest:
        if why := problem(manifest.files):
            raise StorageError(f"the artifacts of {manifest.workflow} can't be stored: {why}")
        listed = self._objects.listed(manifest.run, manifest.workflow)
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
        self._objects.abort(manifest.run, manifest.workflow)
        self._objects.delete(listed)
        written = msgspec.structs.replace(manifest, files=tuple(files))
        self.bucket.call("put_object", Key=key, Body=encode(written), ContentType="application/json")
        return written

    def _remove(self, run: str, workflow: str) -> None:
        manifest = self.key(run, workflow, MANIFEST)
        self._objects.delete([manifest])
        self._objects.delete(key for key in self._objects.listed(run, workflow) if key != manifest)
        self._objects.abort(run, workflow)

    def _clear(self, run: str, workflow: str, dry_run: bool) -> int:
        listed = self._objects.listed(run, workflow)
        if self.key(run, workflow, MANIFEST) in listed:
            return 0
        uploads = self._objects.uploads(run, workflow)
        parts = [part for key, upload in uploads.items() for part in self._objects.parts(key, upload)]
        if not dry_run:
            self._objects.delete(listed)
            self._objects.abort(run, workflow)
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
