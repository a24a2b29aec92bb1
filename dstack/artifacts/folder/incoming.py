"""Splits a stream of file contents, and adds those that match the listing to the store."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from pathlib import Path

from dstack.artifacts.folder.contents import Contents
from dstack.errors import StorageError
from dstack.model.job.manifest import File, shown


def incoming(folder: Path, contents: Contents, files: Sequence[File]) -> Generator[None, bytes, None]:
    """Write each file to `folder`, which nothing else uses, verify it, and add it to the contents.

    Start it with `next`, send it the bytes in pieces of any size, and b"" at their end. Raises StorageError for bytes
    that do not match the listing, and for too few or too many.
    """
    aside = folder / "incoming"
    data = memoryview(b"")
    for file in files:
        sha256, left = hashlib.sha256(), file.size
        with aside.open("xb") as written:
            while left:
                data = data or memoryview((yield))
                if not data:
                    got = file.size - left
                    raise StorageError(f"{shown(file.path)} arrived incomplete: {got} of {file.size} bytes")
                piece, data = data[:left], data[left:]
                written.write(piece)
                sha256.update(piece)
                left -= len(piece)
        if sha256.hexdigest() != file.sha256:
            raise StorageError(
                f"{shown(file.path)} does not match its checksum: it changed while it was collected, or was damaged "
                "on the way"
            )
        contents.add(aside, file)
    if data or (yield):
        raise StorageError("the runner sent more bytes than the requested files have")
