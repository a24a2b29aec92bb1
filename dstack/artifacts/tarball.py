"""A tar stream of stored files, made piece by piece."""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dstack.errors import StorageError
from dstack.model.manifest import File
from dstack.model.paths import TAR_COMPLETE
from dstack.model.tree import shown

BLOCK = 1 << 20

Blocks = Callable[[], Iterator[bytes]]


def tar(files: Iterable[tuple[File, Path | Blocks]]) -> Iterator[bytes]:
    """The archive of these files, each with where it is stored or what reads it, in pieces of about a MiB.

    GNU's format, which GNU tar, busybox and libarchive read whatever the length of names; busybox ignores those of
    PAX. Owner is 0 and has no name. The last entry says that it is whole. Raises StorageError where a file's bytes are
    not those of its sha256: what was sent until then must not be used.
    """
    pieces: list[bytes] = []
    pending = 0
    for piece in _pieces(files):
        pieces.append(piece)
        pending += len(piece)
        if pending >= BLOCK:
            yield b"".join(pieces)
            pieces, pending = [], 0
    yield b"".join(pieces)


def _pieces(files: Iterable[tuple[File, Path | Blocks]]) -> Iterator[bytes]:
    total = 0
    for file, stored in files:
        for piece in _entry(file, stored):
            total += len(piece)
            yield piece
    last = tarfile.TarInfo(TAR_COMPLETE).tobuf(tarfile.GNU_FORMAT)
    total += len(last)
    yield last
    end = 2 * tarfile.BLOCKSIZE
    yield bytes(end + -(total + end) % tarfile.RECORDSIZE)


def _entry(file: File, stored: Path | Blocks) -> Iterator[bytes]:
    header = tarfile.TarInfo(file.path)
    header.mode = file.mode & 0o777
    try:
        header.mtime = int(stored.lstat().st_mtime if isinstance(stored, Path) else time.time())
        if file.link is not None:
            header.type, header.linkname = tarfile.SYMTYPE, file.link
            yield header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            return
        header.size = file.size
        yield header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
        yield from _content(file, stored)
    except OSError as error:
        raise StorageError(
            f"the stored {shown(file.path)} can't be read: {error.strerror}", hint="dstack run --no-cache"
        ) from error


def _content(file: File, stored: Path | Blocks) -> Iterator[bytes]:
    found = hashlib.sha256()
    left = file.size
    for block in _blocks(stored, file.size) if isinstance(stored, Path) else stored():
        found.update(block)
        left -= len(block)
        if left < 0:
            break
        yield block
    if left or found.hexdigest() != file.sha256:
        if isinstance(stored, Path):
            os.utime(stored)  # from now on it is not trusted without being hashed
        raise StorageError(f"the stored {shown(file.path)} is damaged", hint="dstack run --no-cache")
    yield bytes(-file.size % tarfile.BLOCKSIZE)


def _blocks(stored: Path, size: int) -> Iterator[bytes]:
    with stored.open("rb") as source:
        while size and (block := source.read(min(size, BLOCK))):
            size -= len(block)
            yield block
