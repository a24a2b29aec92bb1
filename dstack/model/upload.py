"""How a file travels to object storage: in one request, or in parts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

MIB = 1 << 20
PART = 64 * MIB
"""Bytes of a part, and of the largest file that goes in one request."""
MOST_PARTS = 10_000
"""S3 takes no more of one object."""


@dataclass(frozen=True)
class Sums:
    """The MD5 of each part of a file, in hex, in order; one for a file that goes in one request."""

    parts: tuple[str, ...]

    @property
    def etag(self) -> str:
        """The ETag that S3 gives what was stored so, unless it encrypts with a key of its own."""
        if len(self.parts) == 1:
            return self.parts[0]
        digests = b"".join(bytes.fromhex(part) for part in self.parts)
        return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(self.parts)}"


@dataclass(frozen=True)
class Stored:
    """An object as the store lists it."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True)
class Piece:
    """One PUT: the bytes of a file from `start` on, `length` of them, to a presigned URL with these headers.

    `part` is None for a file that goes whole, else the part's number, from 1 on.
    """

    path: str
    start: int
    length: int
    part: int | None
    url: str
    headers: tuple[tuple[str, str], ...]

    @property
    def name(self) -> tuple[str, int | None]:
        """What tells it from the others of a plan."""
        return self.path, self.part


def part_size(size: int) -> int:
    """Bytes of each part but the last of a file of this size: whole MiB."""
    parts = -(-size // MOST_PARTS)
    return max(PART, -(-parts // MIB) * MIB)


def spans(size: int) -> list[tuple[int, int]]:
    """Start and length of each part of a file; one span of nothing for an empty file."""
    step = part_size(size)
    return [(start, min(step, size - start)) for start in range(0, size, step)] or [(0, 0)]


def in_base64(digest: str) -> str:
    """A digest in hex, as HTTP's headers have it."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def total(pieces: Sequence[Piece]) -> int:
    """The bytes of all pieces."""
    return sum(piece.length for piece in pieces)
