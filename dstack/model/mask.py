"""Secrets in a log: each of their bytes becomes `*`, so that offsets stay what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable

SHORTEST = 4
"""A value of fewer bytes is not masked: it would be found everywhere."""


def needles(values: Iterable[str]) -> tuple[bytes, ...]:
    """What to look for: the values, and the lines of those that have several."""
    found: set[bytes] = set()
    for value in values:
        whole = value.encode("utf-8", "surrogateescape")
        found.update(part for part in (whole, whole.strip(), *whole.splitlines()) if len(part) >= SHORTEST)
    return tuple(sorted(found, key=lambda part: (-len(part), part)))


def reach(values: Collection[bytes]) -> int:
    """How many bytes before and after a piece of a log must be known to mask it."""
    return max(map(len, values), default=1) - 1


def mask(before: bytes, data: bytes, after: bytes, values: Collection[bytes]) -> bytes:
    """The data without the values, also where one begins before it or ends after it."""
    window = before + data + after
    masked = bytearray(window)
    for value in values:
        at = window.find(value)
        while at >= 0:
            masked[at : at + len(value)] = b"*" * len(value)
            at = window.find(value, at + 1)
    return bytes(masked[len(before) : len(before) + len(data)])


def unfinished(tail: bytes, values: Collection[bytes]) -> int:
    """How many bytes at the end may be the beginning of a value of which the rest has not come."""
    for count in range(min(len(tail), reach(values)), 0, -1):
        end = tail[-count:]
        if any(len(value) > count and value.startswith(end) for value in values):
            return count
    return 0
