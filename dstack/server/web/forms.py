"""Reads the fields of a form."""

from __future__ import annotations

from collections import defaultdict
from typing import TypeVar, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from starlette.requests import Request

from dstack.errors import UsageError
from dstack.server.border.values import reading, sound

Fields = TypeVar("Fields", bound=Struct)
FORM = "application/x-www-form-urlencoded"
KEY = "form_key"
"""The field that shows that the form is from the session's own page."""


async def form_of(request: Request, kind: type[Fields]) -> tuple[Fields, str]:
    """Return the fields of a form, and its key. A field of several values is one whose type is a tuple; a blank one is
    left out. Raises UsageError."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise UsageError(f"a form has the content type {FORM}")
    body = await request.body()
    given: dict[str, list[str]] = defaultdict(list)
    with reading("the form is not valid"):
        for name, value in parse_qsl(body.decode("ascii"), errors="surrogateescape"):
            given[name].append(value)
        several = {name for name, hint in get_type_hints(kind).items() if get_origin(hint) is tuple}
        values = {name: each if name in several else each[-1] for name, each in given.items()}
        return sound(msgspec.convert(values, kind, strict=False)), values.get(KEY, "")  # type: ignore[return-value]
