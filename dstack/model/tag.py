"""Tags: `:NAME` stands for a run or job wherever one is expected."""

from __future__ import annotations

import re

from dstack.errors import UsageError

MARK = ":"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def is_tag(ref: str) -> bool:
    """Whether the text is `:NAME` instead of a name of its own."""
    return ref.startswith(MARK)


def trouble(ref: str) -> str | None:
    """Why `:NAME` can't be a tag, as the end of a sentence; None if it can."""
    if _NAME.fullmatch(ref.removeprefix(MARK)):
        return None
    return f"'{ref}' is no tag: letters, digits, '-', '_' and '.', not beginning with '-' or '.'"


def name_of(ref: str) -> str:
    """The name in `:NAME`, or in a NAME alone. Raises UsageError for what can't be one."""
    why = trouble(ref)
    if why:
        raise UsageError(why, hint="dstack tag RUN base-model")
    return ref.removeprefix(MARK)
