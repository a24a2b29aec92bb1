"""Tags: `:NAME` can be used wherever a run or job is expected."""

from __future__ import annotations

import re

from dstack.errors import UsageError

MARK = ":"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_tag(ref: str) -> bool:
    """Whether the text has the form `:NAME`."""
    return ref.startswith(MARK)


def trouble(ref: str) -> str | None:
    """Why `:NAME` is not a valid tag; None if it is."""
    if _NAME.fullmatch(ref.removeprefix(MARK)):
        return None
    return (
        f"'{ref}' is not a valid tag; use up to 100 letters, digits, '-', '_' and '.', and don't start with '-' or '.'"
    )


def name_of(ref: str) -> str:
    """Return the name in `:NAME` or NAME. Raises UsageError if it is not a valid tag."""
    why = trouble(ref)
    if why:
        raise UsageError(why, hint="dstack tag RUN base-model")
    return ref.removeprefix(MARK)
