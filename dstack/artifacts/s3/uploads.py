"""What a job's runner has to upload to a bucket, and what has arrived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from dstack.artifacts.s3.objects import Objects, each, plain
from dstack.artifacts.s3.presign import Signer
from dstack.errors import StorageError
from dstack.model.job.manifest import File, shown
from dstack.model.job.pieces import Piece, Sums, in_base64, spans

Sent = frozenset[tuple[str, int | None]]
"""The names of the pieces that S3 accepted after checking their MD5."""


@dataclass(frozen=True)
class Uploading:
    """How far an upload is: the pieces still to send, and the ETags of the files that have arrived, by path."""

    pieces: tuple[Piece, ...]
    arrived: Mapping[str, str]


class Uploads:
    """Plans the uploads of one job. URLs are valid for `expires` seconds."""

    def __init__(self, objects: Objects, expires: int) -> None:
        self.objects = objects
        self.bucket = objects.bucket
        self.expires = expires

    def plan(
        self,
        files: Sequence[File],
        sums: Mapping[str, Sums],
        sent: Sent = frozenset(),
        known: Mapping[str, str] = MappingProxyType({}),
    ) -> Uploading:
        """Compare what has arrived with these regular files, complete multipart uploads, and presign the rest. `sums`
        are the files' checksums from the runner. `known` has ETags that were seen just before: some stores' ETags are
        not MD5s."""
        self.objects.refuse(files)
        listed, uploads = self.objects.listed(), dict(self.objects.uploads())
        arrived: dict[str, str] = {}
        todo: list[File] = []
        for file in files:
            stored = listed.get(self.objects.key(file.path))
            right = {sums[file.path].etag, known.get(file.path)}
            if stored and stored.size == file.size and (stored.etag in right or (file.path, None) in sent):
                arrived[file.path] = stored.etag
            else:
                todo.append(file)
        missing: list[tuple[File, str | None, list[int]]] = []
        for file, upload, lacking in each(lambda file: self._lacking(file, sums[file.path], uploads, sent), todo):
            if upload is not None and not lacking:
                arrived[file.path] = self._completed(upload, file)
            else:
                missing.append((file, upload, lacking))
        signer = self.bucket.signer()
        pieces = [
            self._piece(signer, file, sums[file.path], number, upload)
            for file, upload, lacking in missing
            for number in lacking
        ]
        return Uploading(tuple(pieces), arrived)

    def _lacking(
        self, file: File, sums: Sums, uploads: Mapping[str, str], sent: Sent
    ) -> tuple[File, str | None, list[int]]:
        """Return the file, its multipart upload (None if it is sent in one piece), and the numbers of missing parts."""
        if len(sums.parts) == 1:
            return file, None, [1]
        key = self.objects.key(file.path)
        upload = uploads.get(key)
        if upload is None:
            upload = str(self.bucket.call("create_multipart_upload", Key=key)["UploadId"])
            return file, upload, list(range(1, len(sums.parts) + 1))
        there = {part["PartNumber"]: part for part in self.objects.parts(key, upload)}
        lengths = spans(file.size)
        lacking = [
            number
            for number, md5 in enumerate(sums.parts, 1)
            if number not in there
            or there[number]["Size"] != lengths[number - 1][1]
            or (plain(there[number]["ETag"]) != md5 and (file.path, number) not in sent)
        ]
        return file, upload, lacking

    def _completed(self, upload: str, file: File) -> str:
        """Complete a multipart upload. Return the object's ETag."""
        key = self.objects.key(file.path)
        parts = [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]} for part in self.objects.parts(key, upload)]
        wanted = sorted(parts, key=lambda part: part["PartNumber"])[: len(spans(file.size))]
        self.bucket.call("complete_multipart_upload", Key=key, UploadId=upload, MultipartUpload={"Parts": wanted})
        made = self.bucket.call("head_object", Key=key)
        if made["ContentLength"] != file.size:
            raise StorageError(f"S3 stored {made['ContentLength']} bytes of {shown(file.path)} instead of {file.size}")
        return plain(made["ETag"])

    def _piece(self, signer: Signer, file: File, sums: Sums, number: int, upload: str | None) -> Piece:
        start, length = spans(file.size)[number - 1]
        headers = {"Content-MD5": in_base64(sums.parts[number - 1])}
        query = None
        if upload is None:
            headers["x-amz-checksum-sha256"] = in_base64(file.sha256)
        else:
            query = {"partNumber": str(number), "uploadId": upload}
        url = signer.url("PUT", self.objects.key(file.path), self.expires, query=query, headers=headers)
        return Piece(file.path, start, length, None if upload is None else number, url, tuple(headers.items()))
