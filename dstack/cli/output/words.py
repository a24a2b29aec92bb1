"""Formats counts, and formats and parses times as seen from now."""

from __future__ import annotations

import re
import time

from dstack.errors import UsageError
from dstack.model.text.units import age_words, rfc3339, seconds, span, took_words

WEEK = 7 * 86400


def count(number: int, noun: str) -> str:
    """Format a number of things: `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def took(begin: str | None, end: str | None) -> str:
    """Format the time from `begin` to `end` (None: until now); "" if it has not begun."""
    if begin is None:
        return ""
    return took_words((seconds(end) if end else time.time()) - seconds(begin))


def ago(moment: str) -> str:
    """Format a time as `5m ago`, or as its date if it is more than a week ago."""
    age = time.time() - seconds(moment)
    return moment[:10] if age > WEEK else age_words(age)


def since(text: str) -> str:
    """Parse `10m`, `2h` or `1d12h` ago, or an RFC 3339 time, to an RFC 3339 time in UTC."""
    try:
        return rfc3339(max(0.0, time.time() - span(text)) if re.search("[smhd]$", text) else seconds(text))
    except ValueError as error:
        raise UsageError(f"'{text}' is not a time; write 30s, 10m, 2h, 1d or 2026-01-31T12:00:00Z") from error
