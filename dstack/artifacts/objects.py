"""The objects of a store in a bucket: what they are called, which there are, and how they go."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dstack.artifacts.bucket import AT_ONCE, Bucket, GoneError
from dstack.errors import StorageError
from dstack.model.manifest import File
from dstack.model.tree import shown
from dstack.model.upload import Stored

T = TypeVar("T")
R = TypeVar("R")

LONGEST_KEY = 1024
"""Bytes (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html)."""

_ODD = re.compile(r"[\x00-\x1f\x7f\udc80-\udcff]")


class Objects:
    """All below `prefix`, which is empty or ends with a slash. Every method raises StorageError."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = prefix

    def key(self, run: str, workflow: str, path: str) -> str:
        """The object of a file. What no key should hold stands as `%0A`."""
        return f"{self.prefix}{run}/{workflow}/{_ODD.sub(_escaped, path)}"

    def refuse(self, run: str, workflow: str, files: Sequence[File]) -> None:
        """Raise StorageError for files that can't all have objects of their own."""
        keys: dict[str, str] = {}
        for file in files:
            key = self.key(run, workflow, file.path)
            if len(key.encode()) > LONGEST_KEY:
                raise StorageError(f"{shown(file.path)} is too long a name for S3, which takes {LONGEST_KEY} bytes")
            if keys.setdefault(key, file.path) != file.path:
                raise StorageError(f"{shown(file.path)} and {shown(keys[key])} have the same name in S3")

    def listed(self, run: str, workflow: str) -> dict[str, Stored]:
        """What there is of a job, by key: one request a thousand objects."""
        prefix = self.key(run, workflow, "")
        entries = self.bucket.pages("list_objects_v2", "Contents", Prefix=prefix)
        return {entry["Key"]: Stored(entry["Key"], entry["Size"], plain(entry["ETag"])) for entry in entries}

    def uploads(self, run: str, workflow: str) -> dict[str, str]:
        """The newest unfinished multipart upload of each object of a job."""
        return dict(self._uploads(run, workflow))

    def parts(self, key: str, upload: str) -> list[Any]:
        """What has arrived of a multipart upload, as S3 tells it; nothing of one that is not there."""
        try:
            return list(self.bucket.pages("list_parts", "Parts", Key=key, UploadId=upload))
        except GoneError:
            return []

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, several at once."""

        def delete(key: str) -> None:
            with contextlib.suppress(GoneError):
                self.bucket.call("delete_object", Key=key)

        each(delete, list(keys))

    def abort(self, run: str, workflow: str) -> None:
        """Give up unfinished uploads, whose parts cost money."""
        for key, upload in self._uploads(run, workflow):
            with contextlib.suppress(GoneError):
                self.bucket.call("abort_multipart_upload", Key=key, UploadId=upload)

    def _uploads(self, run: str, workflow: str) -> list[tuple[str, str]]:
        """Key and id of every unfinished upload, oldest first."""
        try:
            found = list(self.bucket.pages("list_multipart_uploads", "Uploads", Prefix=self.key(run, workflow, "")))
        except GoneError:  # how rclone says that there are none
            return []
        return [(entry["Key"], entry["UploadId"]) for entry in sorted(found, key=lambda entry: entry["Initiated"])]


def each(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """The work for all items, several at once."""
    if not items:
        return []
    with ThreadPoolExecutor(min(AT_ONCE, len(items))) as pool:
        return list(pool.map(work, items))


def plain(etag: str) -> str:
    """An ETag without its quotes."""
    return etag.strip('"')


def _escaped(found: re.Match[str]) -> str:
    return f"%{ord(found[0]) & 0xFF:02X}"
