"""Makes a tar stream of stored files, piece by piece."""

from __future__ import annotations

import hashlib
import itertools
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dstack.artifacts.files import BLOCK, read
from dstack.errors import StorageError
from dstack.model.job.manifest import File, shown
from dstack.model.paths import TAR_COMPLETE

Blocks = Callable[[], Iterator[bytes]]
Entry = tuple[File, Path | Blocks]
"""A stored file with its path or its reader."""


def tar(files: Iterable[Entry]) -> Iterator[bytes]:
    """Yield the archive of these files in pieces of about 1 MiB. It is in GNU
    format, because GNU tar, busybox and libarchive all read its long names; busybox ignores PAX's. The owner is 0,
    without a name. The last entry marks the archive as complete. Raises StorageError at a file that does not match its
    sha256: the receiver must not use what was sent until then."""
    entries = (piece for file, stored in files for piece in _entry(file, stored))
    last = tarfile.TarInfo(TAR_COMPLETE).tobuf(tarfile.GNU_FORMAT)
    pieces: list[bytes] = []
    pending = total = 0
    for piece in itertools.chain(entries, [last]):
        pieces.append(piece)
        pending += len(piece)
        total += len(piece)
        if pending >= BLOCK:
            yield b"".join(pieces)
            pieces, pending = [], 0
    end = 2 * tarfile.BLOCKSIZE
    yield b"".join([*pieces, bytes(end + -(total + end) % tarfile.RECORDSIZE)])


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
            f"the stored file {shown(file.path)} can't be read: {error.strerror}", hint="dstack run --no-cache"
        ) from error


def _content(file: File, stored: Path | Blocks) -> Iterator[bytes]:
    sha256 = hashlib.sha256()
    left = file.size
    for block in read(stored, 0) if isinstance(stored, Path) else stored():
        sha256.update(block)
        left -= len(block)
        if left < 0:
            break
        yield block
    if left or sha256.hexdigest() != file.sha256:
        if isinstance(stored, Path):
            os.utime(stored)  # a new mtime: it is hashed before it is trusted again
        raise StorageError(f"the stored file {shown(file.path)} is damaged", hint="dstack run --no-cache")
    yield bytes(-file.size % tarfile.BLOCKSIZE)
