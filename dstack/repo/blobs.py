"""Turns files into git blobs of their raw bytes, read once and noticed if they change meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path

from dstack.errors import DstackError

CHUNK = 1 << 20


class ChangedError(DstackError):
    """A file is not what it was when it was listed."""

    def __init__(self, path: bytes) -> None:
        self.path = path
        super().__init__(f"{os.fsdecode(path)} changed while it was read")


class Blobs:
    """Hashes files, and stores them as loose objects (gitformat-loose) in a folder of its own."""

    def __init__(self, objects: Path, object_format: str) -> None:
        self.objects = objects
        self.object_format = object_format

    def hash(self, file: bytes, known: os.stat_result) -> str:
        """The id of the blob with the file's bytes, or a link's target. Raises ChangedError, OSError."""
        return self._read(file, known, None)

    def store(self, file: bytes, known: os.stat_result) -> str:
        """The same, and the blob is there afterwards."""
        aside = self.objects / "new"
        with aside.open("wb") as target:
            oid = self._read(file, known, target.fileno())
        folder = self.objects / oid[:2]
        folder.mkdir(exist_ok=True)
        aside.replace(folder / oid[2:])
        return oid

    def add(self, content: bytes) -> str:
        """The id of a blob with this content, which is there afterwards."""
        data = b"blob %d\0" % len(content) + content
        oid = hashlib.new(self.object_format, data).hexdigest()
        folder = self.objects / oid[:2]
        folder.mkdir(exist_ok=True)
        aside = self.objects / "new"
        aside.write_bytes(zlib.compress(data, 1))
        aside.replace(folder / oid[2:])
        return oid

    def _read(self, file: bytes, known: os.stat_result, target: int | None) -> str:
        digest = hashlib.new(self.object_format)
        packer = zlib.compressobj(1) if target is not None else None

        def add(data: bytes) -> None:
            digest.update(data)
            if packer is not None and target is not None:
                _write(target, packer.compress(data))

        if stat.S_ISLNK(known.st_mode):
            link = os.readlink(file)
            add(b"blob %d\0" % len(link) + link)
        else:
            add(b"blob %d\0" % known.st_size)
            self._read_file(file, known, add)
        if packer is not None and target is not None:
            _write(target, packer.flush())
        return digest.hexdigest()

    @staticmethod
    def _read_file(file: bytes, known: os.stat_result, add: Callable[[bytes], None]) -> None:
        """O_NONBLOCK: a FIFO that took the file's place must not hold us."""
        source = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not unchanged(known, os.fstat(source)):
                raise ChangedError(file)
            left = known.st_size
            while left:
                data = os.read(source, min(left, CHUNK))
                if not data:
                    raise ChangedError(file)
                add(data)
                left -= len(data)
            if not unchanged(known, os.fstat(source)):
                raise ChangedError(file)
        finally:
            os.close(source)


def unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether two looks at a file saw the same one."""
    return _stamp(before) == _stamp(after)


def _stamp(found: os.stat_result) -> tuple[int, ...]:
    return (found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]
