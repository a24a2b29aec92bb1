"""Splits a stream of file contents, and adds those that match the listing to the store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from dstack.artifacts.folder.contents import Contents
from dstack.errors import StorageError
from dstack.model.job.manifest import File, shown


class Incoming:
    """Takes bytes in pieces of any size, writes each file to `folder`, which it has to itself, and verifies it."""

    def __init__(self, folder: Path, contents: Contents, files: Sequence[File]) -> None:
        self._folder = folder
        self._contents = contents
        self._files = iter(files)
        self._aside: BinaryIO | None = None
        self._next()

    def write(self, data: bytes) -> None:
        """Take the next bytes. Raises StorageError for bytes that do not match the listing."""
        rest = memoryview(data)
        while rest:
            if self._file is None:
                raise StorageError("the runner sent more bytes than the requested files have")
            assert self._aside is not None
            piece, rest = rest[: self._left], rest[self._left :]
            self._aside.write(piece)
            self._sum.update(piece)
            self._left -= len(piece)
            if not self._left:
                self._finish(self._file)

    def end(self) -> None:
        """Note that the stream has ended. Raises StorageError if a file is incomplete."""
        if self._file is not None:
            got = self._file.size - self._left
            raise StorageError(f"{shown(self._file.path)} arrived incomplete: {got} of {self._file.size} bytes")

    def close(self) -> None:
        """Remove an incomplete file."""
        if self._aside is not None:
            self._aside.close()
            os.unlink(self._aside.name)
            self._aside = None

    def _next(self) -> None:
        """Begin the next file. Empty files are done at once."""
        self._file = next(self._files, None)
        if self._file is None:
            return
        self._aside = (self._folder / "incoming").open("xb")
        self._sum = hashlib.sha256()
        self._left = self._file.size
        if not self._left:
            self._finish(self._file)

    def _finish(self, file: File) -> None:
        assert self._aside is not None
        if self._sum.hexdigest() != file.sha256:
            raise StorageError(
                f"{shown(file.path)} does not match its checksum: it changed while it was collected, or was damaged "
                "on the way"
            )
        self._aside.close()
        self._contents.add(Path(self._aside.name), file)
        self._aside = None
        self._next()
