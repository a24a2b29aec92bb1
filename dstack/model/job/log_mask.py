"""Masks secrets in logs. Each byte becomes `*`, so offsets don't change."""

from __future__ import annotations

from collections.abc import Collection, Iterable

SHORTEST = 4
"""Values of fewer bytes are not masked, because they would match everywhere."""


def needles(values: Iterable[str]) -> tuple[bytes, ...]:
    """Return what to search for: the values, and each line of multi-line values."""
    parts: set[bytes] = set()
    for value in values:
        whole = value.encode("utf-8", "surrogateescape")
        parts.update(part for part in (whole, whole.strip(), *whole.splitlines()) if len(part) >= SHORTEST)
    return tuple(sorted(parts, key=lambda part: (-len(part), part)))


def reach(values: Collection[bytes]) -> int:
    """Return how many bytes before and after a piece of a log are needed to mask it."""
    return max(map(len, values), default=1) - 1


def mask(before: bytes, data: bytes, after: bytes, values: Collection[bytes]) -> bytes:
    """Return the data with the values masked, including values that start before it or end after it."""
    window = before + data + after
    masked = bytearray(window)
    for value in values:
        at = window.find(value)
        while at >= 0:
            masked[at : at + len(value)] = b"*" * len(value)
            at = window.find(value, at + 1)
    return bytes(masked[len(before) : len(before) + len(data)])


def unfinished(tail: bytes, values: Collection[bytes]) -> int:
    """Return how many bytes at the end may be the start of a value whose rest has not arrived yet."""
    for count in range(min(len(tail), reach(values)), 0, -1):
        end = tail[-count:]
        if any(len(value) > count and value.startswith(end) for value in values):
            return count
    return 0
