"""The artifact store in an S3 bucket. The bytes go between hosts and bucket, by presigned URLs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from dstack.artifacts import document
from dstack.artifacts.bucket import AT_ONCE, Bucket, GoneError, parse
from dstack.artifacts.tarball import BLOCK, tar
from dstack.artifacts.threads import pieces, to_its_end
from dstack.errors import NotFoundError, StorageError
from dstack.model import tree
from dstack.model.manifest import File, Manifest
from dstack.model.tree import shown
from dstack.model.upload import Piece, Stored, Sums, in_base64, spans

T = TypeVar("T")
R = TypeVar("R")

EXPIRES = 12 * 3600
"""Seconds for which a presigned URL is good: how long a host goes on while the server is down."""
LONGEST_KEY = 1024
"""Bytes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""
COPY = 5 * 1024**3
"""Bytes of the largest object that one request copies."""

_ODD = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]")


@dataclass(frozen=True)
class Uploading:
    """How far an upload is: what has to be sent yet, and the ETags of the files that are there, by path."""

    pieces: tuple[Piece, ...]
    arrived: Mapping[str, str]


class S3Store:
    """`s3://bucket/prefix/<run>/<workflow>/<path>`, with `manifest.json` beside a job's files, written last.

    Nothing is kept here: what has arrived of an upload is asked of S3. `expires` in seconds.
    """

    def __init__(self, url: str, endpoint: str | None = None, *, expires: int = EXPIRES) -> None:
        name, prefix = parse(url)
        self.url = f"s3://{name}/{prefix}".rstrip("/")
        self.bucket = Bucket(name, endpoint)
        self._prefix = f"{prefix}/" if prefix else ""
        self._expires = expires

    @property
    def name(self) -> str:
        """What tells it from other stores."""
        return f"{self.bucket.endpoint} {self.url}" if self.bucket.endpoint else self.url

    def check(self) -> None:
        """Raise UsageError unless the store can be used."""
        self.bucket.check(f"{self._prefix}.dstack-check")

    def key(self, run: str, workflow: str, path: str) -> str:
        """The object of a file. What no key should hold stands as `%0A`."""
        return f"{self._prefix}{run}/{workflow}/{_ODD.sub(_escaped, path)}"

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
        """Compare what has arrived with these regular files, complete what is complete, and presign the rest.

        `sums` are theirs as the host hashed them. `sent` names the pieces that S3 took after checking their MD5, and
        `known` has ETags that were found right before: some stores' are no MD5.
        """
        return await to_its_end(lambda: self._plan(run, workflow, files, sums, sent, known or {}))

    async def copy(self, run: str, workflow: str, file: File, source: Stored) -> str | None:
        """Make the file a copy of an object with the same content; the ETag that it has, or None where that object
        is not what it was."""
        return await to_its_end(lambda: self._copy(self.key(run, workflow, file.path), source))

    async def commit(self, manifest: Manifest) -> Manifest:
        """Write the manifest, with ETags, when all its files are there. What an earlier commit left is removed."""
        return await to_its_end(lambda: self._commit(manifest))

    def manifest(self, run: str, workflow: str) -> Manifest | None:
        """What the job left; None where there is no manifest, or none that can be read."""
        try:
            answer = self.bucket.call("get_object", Key=self.key(run, workflow, tree.MANIFEST))
            found = document.decode(answer["Body"].read())
        except (GoneError, ValueError):
            return None
        return found if (found.run, found.workflow) == (run, workflow) else None

    def verify(self, manifest: Manifest) -> str | None:
        """What of it is damaged or gone, in a few words, or None. One request a thousand files."""
        found = self._listed(manifest.run, manifest.workflow)
        for file in manifest.files:
            if file.link is not None:
                continue
            stored = found.get(self.key(manifest.run, manifest.workflow, file.path))
            if stored is None:
                return f"{shown(file.path)} is gone"
            if stored.size != file.size:
                return f"{shown(file.path)} has {stored.size} bytes instead of {file.size}"
            if stored.etag != file.etag:
                return f"{shown(file.path)} has other bytes than were stored"
        return None

    def open(self, run: str, workflow: str, path: str, offset: int = 0) -> AsyncIterator[bytes]:
        """A stored file's bytes from `offset` on. Raises NotFoundError for what is no file of the job's."""
        return pieces(self._read(run, workflow, path, offset))

    def tar(self, manifests: Sequence[Manifest]) -> AsyncIterator[bytes]:
        """A tar stream of all their files. It breaks off with StorageError where a file's bytes are not those of the
        manifest."""
        files: dict[str, tuple[File, Callable[[], Iterator[bytes]]]] = {}
        for manifest in manifests:
            for file in manifest.files:
                files.setdefault(file.path, (file, self._reader(manifest, file)))
        return pieces(tar(files.values()))

    def conflicts(self, manifests: Sequence[Manifest]) -> str | None:
        """Why these can't be given to one job, or None: two give one path different bytes."""
        return tree.conflicts(manifests)

    async def remove(self, run: str, workflow: str) -> None:
        """Remove what the job left, its manifest first."""
        await to_its_end(lambda: self._remove(run, workflow))

    async def sweep(self) -> None:
        """Nothing: what has arrived of an unfinished upload is of use to whoever takes it up again."""

    async def urls(self, run: str, workflow: str, paths: Sequence[str]) -> list[str]:
        """URLs that anybody may read these files with, until they expire."""
        return await to_its_end(lambda: self._urls(run, workflow, paths))

    def _urls(self, run: str, workflow: str, paths: Sequence[str]) -> list[str]:
        signer = self.bucket.signer()
        return [signer.url("GET", self.key(run, workflow, path), self._expires) for path in paths]

    def _plan(
        self,
        run: str,
        workflow: str,
        files: Sequence[File],
        sums: Mapping[str, Sums],
        sent: frozenset[tuple[str, int | None]],
        known: Mapping[str, str],
    ) -> Uploading:
        self._refuse(run, workflow, files)
        listed, uploads = self._listed(run, workflow), self._uploads(run, workflow)
        arrived: dict[str, str] = {}
        todo: list[File] = []
        for file in files:
            stored = listed.get(self.key(run, workflow, file.path))
            right = {sums[file.path].etag, known.get(file.path)}
            if stored and stored.size == file.size and (stored.etag in right or (file.path, None) in sent):
                arrived[file.path] = stored.etag
            else:
                todo.append(file)
        missing: list[tuple[File, list[int], str | None]] = []
        for file, upload, lacking in self._each(lambda f: self._lacking(run, workflow, f, sums, uploads, sent), todo):
            if upload is not None and not lacking:
                arrived[file.path] = self._completed(self.key(run, workflow, file.path), upload, file)
            else:
                missing.append((file, lacking, upload))
        signer = self.bucket.signer()
        made = [
            self._piece(signer, self.key(run, workflow, file.path), file, sums[file.path], number, upload)
            for file, lacking, upload in missing
            for number in lacking
        ]
        return Uploading(tuple(made), arrived)

    def _lacking(
        self,
        run: str,
        workflow: str,
        file: File,
        sums: Mapping[str, Sums],
        uploads: Mapping[str, str],
        sent: frozenset[tuple[str, int | None]],
    ) -> tuple[File, str | None, list[int]]:
        """The numbers of the parts of a file that S3 lacks, and the upload that they belong to: None for one that
        goes whole."""
        expected = sums[file.path].parts
        if len(expected) == 1:
            return file, None, [1]
        key = self.key(run, workflow, file.path)
        upload = uploads.get(key)
        if upload is None:
            upload = str(self.bucket.call("create_multipart_upload", Key=key)["UploadId"])
            return file, upload, list(range(1, len(expected) + 1))
        there = {part["PartNumber"]: part for part in self._parts(key, upload)}
        lengths = spans(file.size)
        lacking = [
            number
            for number, md5 in enumerate(expected, 1)
            if number not in there
            or there[number]["Size"] != lengths[number - 1][1]
            or (_plain(there[number]["ETag"]) != md5 and (file.path, number) not in sent)
        ]
        return file, upload, lacking

    def _completed(self, key: str, upload: str, file: File) -> str:
        """Make an object of its parts; its ETag."""
        parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in self._parts(key, upload)]
        wanted = sorted(parts, key=lambda part: part["PartNumber"])[: len(spans(file.size))]
        self.bucket.call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": wanted})
        made = self.bucket.call("head_object", Key=key)
        if made["ContentLength"] != file.size:
            raise StorageError(f"S3 made {made['ContentLength']} bytes of {shown(file.path)} instead of {file.size}")
        return _plain(made["ETag"])

    def _piece(self, signer: Any, key: str, file: File, sums: Sums, number: int, upload: str | None) -> Piece:
        start, length = spans(file.size)[number - 1]
        headers = {"Content-MD5": in_base64(sums.parts[number - 1])}
        query = None
        if upload is None:
            headers["x-amz-checksum-sha256"] = in_base64(file.sha256)
        else:
            query = {"partNumber": str(number), "uploadId": upload}
        url = signer.url("PUT", key, self._expires, query=query, headers=headers)
        return Piece(file.path, start, length, None if upload is None else number, url, tuple(headers.items()))

    def _copy(self, key: str, source: Stored) -> str | None:
        origin = {"Bucket": self.bucket.name, "Key": source.key}
        try:
            found = self.bucket.call("head_object", Key=source.key)
            if (found["ContentLength"], _plain(found["ETag"])) != (source.size, source.etag):
                return None
            if source.size > COPY:
                self.bucket.call("copy", CopySource=origin, Key=key)
            else:
                self.bucket.call("copy_object", CopySource=origin, Key=key, CopySourceIfMatch=found["ETag"])
        except GoneError:
            return None
        return _plain(self.bucket.call("head_object", Key=key)["ETag"])

    def _commit(self, manifest: Manifest) -> Manifest:
        if why := tree.problem(manifest.files):
            raise StorageError(f"the artifacts of {manifest.workflow} can't be stored: {why}")
        listed = self._listed(manifest.run, manifest.workflow)
        files = []
        for file in manifest.files:
            if file.link is None:
                stored = listed.pop(self.key(manifest.run, manifest.workflow, file.path), None)
                if stored is None or stored.size != file.size:
                    raise StorageError(f"{shown(file.path)} is not in the store", hint="collect it again")
                file = msgspec.structs.replace(file, etag=stored.etag)
            files.append(file)
        key = self.key(manifest.run, manifest.workflow, tree.MANIFEST)
        listed.pop(key, None)
        self._abort(manifest.run, manifest.workflow)
        self._delete(listed)
        whole = msgspec.structs.replace(manifest, files=tuple(files))
        self.bucket.call("put_object", Key=key, Body=document.encode(whole), ContentType="application/json")
        return whole

    def _remove(self, run: str, workflow: str) -> None:
        manifest = self.key(run, workflow, tree.MANIFEST)
        self._delete([manifest])
        self._delete(key for key in self._listed(run, workflow) if key != manifest)
        self._abort(run, workflow)

    def _abort(self, run: str, workflow: str) -> None:
        """Give up unfinished uploads, whose parts cost money."""
        for key, upload in self._uploads(run, workflow).items():
            with contextlib.suppress(GoneError):
                self.bucket.call("abort_multipart_upload", Key=key, UploadId=upload)

    def _delete(self, keys: Iterable[str]) -> None:
        def delete(key: str) -> None:
            with contextlib.suppress(GoneError):
                self.bucket.call("delete_object", Key=key)

        self._each(delete, list(keys))

    def _listed(self, run: str, workflow: str) -> dict[str, Stored]:
        prefix = self.key(run, workflow, "")
        entries = self.bucket.pages("list_objects_v2", "Contents", Prefix=prefix)
        return {entry["Key"]: Stored(entry["Key"], entry["Size"], _plain(entry["ETag"])) for entry in entries}

    def _uploads(self, run: str, workflow: str) -> dict[str, str]:
        """The newest unfinished upload of each object."""
        try:
            found = list(self.bucket.pages("list_multipart_uploads", "Uploads", Prefix=self.key(run, workflow, "")))
        except GoneError:  # how rclone says that there are none
            return {}
        ordered = sorted(found, key=lambda entry: entry["Initiated"])
        return {entry["Key"]: entry["UploadId"] for entry in ordered}

    def _parts(self, key: str, upload: str) -> list[Any]:
        try:
            return list(self.bucket.pages("list_parts", "Parts", Key=key, UploadId=upload))
        except GoneError:
            return []

    def _reader(self, manifest: Manifest, file: File) -> Callable[[], Iterator[bytes]]:
        return lambda: self._read(manifest.run, manifest.workflow, file.path, 0)

    def _read(self, run: str, workflow: str, path: str, offset: int) -> Iterator[bytes]:
        if tree.objection(path) is not None:
            raise NotFoundError(f"{run}/{workflow} has no file {shown(path)}", hint=f"dstack artifacts list {run}")
        key = self.key(run, workflow, path)
        try:
            if offset and offset >= self.bucket.call("head_object", Key=key)["ContentLength"]:
                return
            extra = {"Range": f"bytes={offset}-"} if offset else {}
            body = self.bucket.call("get_object", Key=key, **extra)["Body"]
        except GoneError as error:
            raise NotFoundError(
                f"{run}/{workflow} has no file {shown(path)}", hint=f"dstack artifacts list {run}"
            ) from error
        with contextlib.closing(body):
            yield from self._blocks(body)

    def _blocks(self, body: Any) -> Iterator[bytes]:
        from dstack.artifacts.bucket import trouble

        with trouble(self.bucket.name, self.bucket.endpoint):
            yield from body.iter_chunks(BLOCK)

    def _refuse(self, run: str, workflow: str, files: Sequence[File]) -> None:
        keys: dict[str, str] = {}
        for file in files:
            key = self.key(run, workflow, file.path)
            if len(key.encode()) > LONGEST_KEY:
                raise StorageError(f"{shown(file.path)} is too long a name for S3, which takes {LONGEST_KEY} bytes")
            if keys.setdefault(key, file.path) != file.path:
                raise StorageError(f"{shown(file.path)} and {shown(keys[key])} have the same name in S3")

    @staticmethod
    def _each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The work for all items, several at once."""
        if not items:
            return []
        with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
            return list(pool.map(work, items))


def _plain(etag: str) -> str:
    return etag.strip('"')


def _escaped(found: re.Match[str]) -> str:
    return f"%{ord(found[0]) & 0xFF:02X}"
