"""Turns files into git blobs of their raw bytes. Each file is read once; if it changes meanwhile, that is detected."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

from dstack.errors import DstackError, ErrorCode
from dstack.plumbing.git import Git

CHUNK = 1 << 20
_stamp = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")


class ChangedError(DstackError):
    """A file has changed since it was listed."""

    code = ErrorCode.FILES_CHANGED

    def __init__(self, path: bytes) -> None:
        self.path = path
        super().__init__(f"{os.fsdecode(path)} changed while it was read")


class Blobs:
    """Hashes files, and stores them as loose objects (gitformat-loose) in the bare repository `scratch`."""

    def __init__(self, scratch: Path, object_format: str) -> None:
        self.scratch = scratch
        self.object_format = object_format

    def git(self, index: str = "index", **variables: str) -> Git:
        """Return git for the scratch repository, with an index of this name."""
        return Git.within(self.scratch, GIT_INDEX_FILE=str(self.scratch / index), **variables)

    def hash(self, file: bytes, listed: os.stat_result) -> str:
        """Return the id of the blob with the file's bytes, or a link's target. Raises ChangedError, OSError."""
        digest = hashlib.new(self.object_format)
        for data in read(file, listed):
            digest.update(data)
        return digest.hexdigest()

    def store(self, file: bytes, listed: os.stat_result) -> str:
        """Store that blob and return its id. Raises ChangedError, OSError."""
        return self._write(read(file, listed))

    def add(self, content: bytes) -> str:
        """Store a blob with this content and return its id."""
        return self._write([b"blob %d\0" % len(content), content])

    def _write(self, pieces: Iterable[bytes]) -> str:
        digest, packer = hashlib.new(self.object_format), zlib.compressobj(1)
        unfinished = self.scratch / "objects/new"
        with unfinished.open("wb") as target:
            for data in pieces:
                digest.update(data)
                target.write(packer.compress(data))
            target.write(packer.flush())
        oid = digest.hexdigest()
        folder = self.scratch / "objects" / oid[:2]
        folder.mkdir(exist_ok=True)
        unfinished.replace(folder / oid[2:])
        return oid


def read(file: bytes, listed: os.stat_result) -> Iterator[bytes]:
    """Yield the blob with the file's bytes, or a link's target, piece by piece. Raises ChangedError, OSError."""
    if stat.S_ISLNK(listed.st_mode):
        link = os.readlink(file)
        yield b"blob %d\0" % len(link)
        yield link
        return
    yield b"blob %d\0" % listed.st_size
    # O_NONBLOCK: a FIFO that took the file's place would block forever.
    with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as source:
        if not unchanged(listed, os.fstat(source.fileno())):
            raise ChangedError(file)
        left = listed.st_size
        while left:
            data = source.read(min(left, CHUNK))
            if not data:
                raise ChangedError(file)
            yield data
            left -= len(data)
        if not unchanged(listed, os.fstat(source.fileno())):
            raise ChangedError(file)


def look(base: bytes, path: bytes) -> os.stat_result:
    """Return the status of a path below the folder `base`. Raises ChangedError if it is gone."""
    try:
        return os.lstat(base + path)
    except OSError as error:
        raise ChangedError(path) from error


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Return whether a file is the same, unmodified one in both stat results."""
    return bool(_stamp(before) == _stamp(after))
