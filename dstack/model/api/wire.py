"""The JSON between CLI and server. Path bytes that are not UTF-8 become the escapes `\\udc80` to `\\udcff`."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


def encode(value: Any) -> bytes:
    """Encode a value as JSON. msgspec refuses surrogate escapes (PEP 383), so the standard library encodes those."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        import json

        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode("ascii")


def decode(data: bytes, kind: type[T]) -> T:
    """Decode JSON. Raises msgspec.DecodeError if the data is not JSON, or not of this type."""
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
