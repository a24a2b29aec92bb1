"""Masks secrets in logs. Each byte becomes `*`, so offsets don't change."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Values of fewer bytes are not masked, because they would match everywhere."""
LONGEST_ENCODED = 16 * 1024
"""The encoded forms of values with more bytes are not masked: there would be too much to search for."""
UNESCAPED = ("", "/", "!'()*", "/!'()*")
"""What programs leave as it is in URLs, besides letters, digits and `_.-~`: RFC 3986, Python, JavaScript."""


def needles(values: Iterable[str]) -> tuple[bytes, ...]:
    """Return what to search for: the values, each line of multi-line values, and the values in base64 and in URLs."""
    parts: set[bytes] = set()
    for value in values:
        whole = value.encode("utf-8", "surrogateescape")
        parts.update(part for part in (whole, whole.strip(), *whole.splitlines()) if len(part) >= SHORTEST)
        for part in {whole, whole.strip()}:
            if SHORTEST <= len(part) <= LONGEST_ENCODED:
                parts.update((*in_base64(part), *in_urls(part)))
    return tuple(sorted(parts, key=lambda part: (-len(part), part)))


def in_base64(value: bytes) -> Iterator[bytes]:
    """Yield how the value reads in base64: alone, as a line, and after any number of other bytes, without the
    characters that it shares with its neighbours."""
    forms = [base64.b64encode(value), base64.b64encode(value + b"\n")]
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + value)
        forms.append(encoded[-(-before * 8 // 6) : (before + len(value)) * 8 // 6])
    for form in forms:
        yield form
        yield form.translate(bytes.maketrans(b"+/", b"-_"))


def in_urls(value: bytes) -> Iterator[bytes]:
    """Yield how the value reads in a URL or a form, with capital and small hexadecimal digits."""
    for text in (quote_plus(value), *(quote(value, safe=safe) for safe in UNESCAPED)):
        yield text.encode()
        head, *rest = text.split("%")
        yield "%".join([head, *(part[:2].lower() + part[2:] for part in rest)]).encode()


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
    longest = 0
    for value in values:
        at = tail.find(value[:1], max(0, len(tail) - len(value) + 1))
        while 0 <= at < len(tail) - longest:
            if value.startswith(tail[at:]):
                longest = len(tail) - at
            at = tail.find(value[:1], at + 1)
    return longest
