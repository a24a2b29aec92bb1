"""How a file is uploaded to object storage: in one request, or in parts."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

MIB = 1 << 20
PART = 64 * MIB
"""Size of a part, and of the largest file uploaded in one request, in bytes."""
MOST_PARTS = 10_000
"""S3's limit for one object."""


@dataclass(frozen=True)
class Sums:
    """The MD5 of each part of a file, in hex and in order. A file uploaded in one request has one part."""

    parts: tuple[str, ...]

    @property
    def etag(self) -> str:
        """The ETag that S3 gives such an object, unless S3 encrypts it with its own key."""
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
    """One PUT to a presigned URL with these headers: `length` bytes of a file, from `start`. `part` is the part's
    number, from 1, or None for a file uploaded in one request."""

    path: str
    start: int
    length: int
    part: int | None
    url: str
    headers: tuple[tuple[str, str], ...]

    @property
    def name(self) -> tuple[str, int | None]:
        """A key that is unique within an upload plan."""
        return self.path, self.part


def part_size(size: int) -> int:
    """Return the bytes per part, in whole MiB, for a file of this size. The last part may be smaller."""
    parts = -(-size // MOST_PARTS)
    return max(PART, -(-parts // MIB) * MIB)


def spans(size: int) -> list[tuple[int, int]]:
    """Return start and length of each part of a file. An empty file has one empty part."""
    step = part_size(size)
    return [(start, min(step, size - start)) for start in range(0, size, step)] or [(0, 0)]


def in_base64(digest: str) -> str:
    """Convert a hex digest to base64, as HTTP headers want it."""
    return base64.b64encode(bytes.fromhex(digest)).decode()
