"""Turns files into git blobs of their raw bytes. Each file is read once; if it changes meanwhile, that is detected."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

from dstack.errors import DstackError, ErrorCode

CHUNK = 1 << 20


class ChangedError(DstackError):
    """A file has changed since it was listed."""

    code = ErrorCode.FILES_CHANGED

    def __init__(self, path: bytes) -> None:
        self.path = path
        super().__init__(f"{os.fsdecode(path)} changed while it was read")


class Blobs:
    """Hashes files, and stores them as loose objects (gitformat-loose) in its own folder."""

    def __init__(self, objects: Path, object_format: str) -> None:
        self.objects = objects
        self.object_format = object_format

    def hash(self, file: bytes, listed: os.stat_result) -> str:
        """Return the id of the blob with the file's bytes, or a link's target. Raises ChangedError, OSError."""
        return self._read(file, listed, None)

    def store(self, file: bytes, listed: os.stat_result) -> str:
        """Store that blob and return its id. Raises ChangedError, OSError."""
        unfinished = self.objects / "new"
        with unfinished.open("wb") as target:
            oid = self._read(file, listed, target.fileno())
        folder = self.objects / oid[:2]
        folder.mkdir(exist_ok=True)
        unfinished.replace(folder / oid[2:])
        return oid

    def add(self, content: bytes) -> str:
        """Store a blob with this content and return its id."""
        data = b"blob %d\0" % len(content) + content
        oid = hashlib.new(self.object_format, data).hexdigest()
        folder = self.objects / oid[:2]
        folder.mkdir(exist_ok=True)
        unfinished = self.objects / "new"
        unfinished.write_bytes(zlib.compress(data, 1))
        unfinished.replace(folder / oid[2:])
        return oid

    def _read(self, file: bytes, listed: os.stat_result, target: int | None) -> str:
        digest = hashlib.new(self.object_format)
        packer = zlib.compressobj(1) if target is not None else None

        def add(data: bytes) -> None:
            digest.update(data)
            if packer is not None and target is not None:
                _write(target, packer.compress(data))

        if stat.S_ISLNK(listed.st_mode):
            link = os.readlink(file)
            add(b"blob %d\0" % len(link) + link)
        else:
            add(b"blob %d\0" % listed.st_size)
            self._read_file(file, listed, add)
        if packer is not None and target is not None:
            _write(target, packer.flush())
        return digest.hexdigest()

    @staticmethod
    def _read_file(file: bytes, listed: os.stat_result, add: Callable[[bytes], None]) -> None:
        # O_NONBLOCK: a FIFO that took the file's place would block forever.
        source = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not unchanged(listed, os.fstat(source)):
                raise ChangedError(file)
            left = listed.st_size
            while left:
                data = os.read(source, min(left, CHUNK))
                if not data:
                    raise ChangedError(file)
                add(data)
                left -= len(data)
            if not unchanged(listed, os.fstat(source)):
                raise ChangedError(file)
        finally:
            os.close(source)


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Return whether a file is the same, unmodified one in both stat results."""
    return _stamp(before) == _stamp(after)


def _stamp(about: os.stat_result) -> tuple[int, ...]:
    return (about.st_mode, about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino)


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
