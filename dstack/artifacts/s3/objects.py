"""The objects of a store in a bucket: their keys, how to list them, and how to remove them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dstack.artifacts.s3.bucket import AT_ONCE, Bucket, ObjectGoneError
from dstack.errors import StorageError
from dstack.model.job.manifest import File, shown
from dstack.model.job.pieces import Stored

T = TypeVar("T")
R = TypeVar("R")

LONGEST_KEY = 1024
"""The longest key that S3 takes, in bytes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""
LARGEST_COPY = 5 * 1024**3
"""The largest object that one request can copy, in bytes."""

_ODD = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]")


class Objects:
    """The objects of one job: all below `prefix`, which ends with a slash. Every method raises StorageError."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix

    def key(self, path: str) -> str:
        """Return the key of a file's object. Bytes that no key should contain become `%0A` and the like."""
        return self.prefix + _ODD.sub(_escaped, path)

    def refuse(self, files: Sequence[File]) -> None:
        """Raise StorageError unless each file can have an object of its own."""
        keys: dict[str, str] = {}
        for file in files:
            key = self.key(file.path)
            if len(key.encode()) > LONGEST_KEY:
                raise StorageError(f"the name {shown(file.path)} is too long for S3, which allows {LONGEST_KEY} bytes")
            if keys.setdefault(key, file.path) != file.path:
                raise StorageError(f"{shown(file.path)} and {shown(keys[key])} have the same name in S3")

    def listed(self) -> dict[str, Stored]:
        """Return the objects by key. Costs one request per thousand objects."""
        entries = self.bucket.pages("list_objects_v2", "Contents", Prefix=self.prefix)
        return {entry["Key"]: Stored(entry["Key"], entry["Size"], plain(entry["ETag"])) for entry in entries}

    def uploads(self) -> list[tuple[str, str]]:
        """Return key and id of every unfinished multipart upload, oldest first."""
        try:
            entries = list(self.bucket.pages("list_multipart_uploads", "Uploads", Prefix=self.prefix))
        except ObjectGoneError:  # rclone's answer if there are none
            return []
        return [(entry["Key"], entry["UploadId"]) for entry in sorted(entries, key=lambda entry: entry["Initiated"])]

    def parts(self, key: str, upload: str) -> list[Any]:
        """Return the parts of a multipart upload that have arrived; none if there is no such upload."""
        try:
            return list(self.bucket.pages("list_parts", "Parts", Key=key, UploadId=upload))
        except ObjectGoneError:
            return []

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, several at a time."""

        def delete(key: str) -> None:
            with contextlib.suppress(ObjectGoneError):
                self.bucket.call("delete_object", Key=key)

        each(delete, list(keys))

    def copy(self, key: str, source: Stored) -> str | None:
        """Make an object a copy of another one. Return its ETag, or None if the other one has changed."""
        origin = {"Bucket": self.bucket.name, "Key": source.key}
        try:
            head = self.bucket.call("head_object", Key=source.key)
            if (head["ContentLength"], plain(head["ETag"])) != (source.size, source.etag):
                return None
            if source.size > LARGEST_COPY:
                self.bucket.call("copy", CopySource=origin, Key=key)
            else:
                self.bucket.call("copy_object", CopySource=origin, Key=key, CopySourceIfMatch=head["ETag"])
        except ObjectGoneError:
            return None
        return plain(self.bucket.call("head_object", Key=key)["ETag"])

    def abort(self) -> None:
        """Abort unfinished uploads, because their parts cost money."""
        for key, upload in self.uploads():
            with contextlib.suppress(ObjectGoneError):
                self.bucket.call("abort_multipart_upload", Key=key, UploadId=upload)


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the results of the work for all items, done several at a time."""
    if not items:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
        return list(pool.map(work, items))


def plain(etag: str) -> str:
    """Return an ETag without its quotes."""
    return etag.strip('"')


def _escaped(match: re.Match[str]) -> str:
    return f"%{ord(match[0]) & 0xFF:02X}"
