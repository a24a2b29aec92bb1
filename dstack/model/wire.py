"""JSON between CLI and server. Bytes of a path that are not UTF-8 travel as the escapes `\\udc80` to `\\udcff`."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """The value as JSON. msgspec itself refuses surrogate escapes (PEP 383); the standard library writes them."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode("ascii")


def decode(data: bytes, kind: type[T]) -> T:
    """The inverse. Raises msgspec.DecodeError for what is not JSON, or not of this type."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        import json

        try:
            return msgspec.convert(json.loads(data), kind)
        except ValueError:
            raise error from None
