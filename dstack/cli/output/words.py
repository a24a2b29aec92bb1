"""Formats counts, and formats and parses times as seen from now."""

from __future__ import annotations

import re
import time

from dstack.errors import UsageError
from dstack.model.text.units import age_words, rfc3339, seconds, span, took_words

WEEK = 7 * 86400
MOMENT = re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z\b")
"""A time as the server writes it into a reason."""


def count(number: int, noun: str, plural: str = "") -> str:
    """Format a number of things: `1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def took(begin: str | None, end: str | None) -> str:
    """Format the time from `begin` to `end` (None: until now); "" if it has not begun."""
    if begin is None:
        return ""
    return took_words((seconds(end) if end else time.time()) - seconds(begin))


def ago(moment: str) -> str:
    """Format a time as `5m ago`, or as its date if it is more than a week ago."""
    age = time.time() - seconds(moment)
    return moment[:10] if age > WEEK else age_words(age)


def local(text: str) -> str:
    """Show the moments in a text in the user's time zone: those of today as `14:03:12`, others with their date."""
    return MOMENT.sub(lambda found: _clock(seconds(found[0])), text)


def _clock(moment: float) -> str:
    there, now = time.localtime(moment), time.localtime()
    return time.strftime("%H:%M:%S" if there[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", there)


def since(text: str) -> str:
    """Parse `10m`, `2h` or `1d12h` ago, or an RFC 3339 time, to an RFC 3339 time in UTC."""
    try:
        return rfc3339(max(0.0, time.time() - span(text)) if re.search("[smhd]$", text) else seconds(text))
    except ValueError as error:
        raise UsageError(f"'{text}' is not a time; write 30s, 10m, 2h, 1d or 2026-01-31T12:00:00Z") from error
