"""Checks the values of a request as they are read. What passes can't fail later because of what it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isinf
from typing import Annotated, TypeVar

import msgspec

from dstack.errors import UsageError

T = TypeVar("T")
PATHS, BYTES = ("path", "paths"), ("value", "reason")
"""The parameters and fields that may hold bytes that are not UTF-8, as surrogate escapes."""
LARGEST = 2**53
Limit = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
"""How many of a list."""
Offset = Annotated[int, msgspec.Meta(ge=0)]
"""Bytes of a file to leave out."""


@contextmanager
def reading(failed: str = "the request is not valid") -> Iterator[None]:
    """Turn what goes wrong when a request is read into a UsageError that begins with `failed`."""
    try:
        yield
    except RecursionError as error:
        raise UsageError(f"{failed}: it is nested too deeply") from error
    except KeyError as error:
        raise UsageError(f"{failed}: the parameter {error} is missing") from error
    except UnicodeError as error:
        raise UsageError(f"{failed}: a text in it is not UTF-8") from error
    except (ValueError, OverflowError, msgspec.DecodeError) as error:
        raise UsageError(f"{failed}: {error}") from error


def sound(value: T, name: str = "") -> T:
    """Return a value from a request if all of the server can work with it. `name` is that of its parameter or field.
    Raises ValueError for a text that is not UTF-8, except where bytes are allowed, a NUL character in a path, and a
    number beyond what SQLite holds."""
    if isinstance(value, str):
        check_text(value, name)
    elif isinstance(value, int | float) and not (-LARGEST <= value <= LARGEST or isinf(value)):
        raise ValueError(f"the number {value} is out of range")
    elif isinstance(value, msgspec.Struct):
        for field in value.__struct_fields__:
            sound(getattr(value, field), field)
    elif isinstance(value, dict):
        for each in (*value, *value.values()):
            sound(each, name)
    elif isinstance(value, list | tuple):
        for each in value:
            sound(each, name)
    return value


def check_text(text: str, name: str) -> None:
    if name in PATHS and "\0" in text:
        raise ValueError("a path contains a NUL character")
    if name not in (*PATHS, *BYTES):
        text.encode()
