"""Formats and parses sizes, times and durations."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

from dstack.errors import UsageError
from dstack.model.text.units import seconds

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def size(count: int) -> str:
    """Format bytes in decimal units: `1.5 MB`."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    units = ["kB", "MB", "GB", "TB"]
    while (value := value / 1000) >= 999.95 and len(units) > 1:
        units.pop(0)
    return f"{value:.1f} {units[0]}"


def bytes_in(text: str) -> int:
    """Parse `500MB`, `1.5 GB`, `1GiB` or plain bytes. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower())
    if found is None:
        raise UsageError(f"'{text}' is not a size; write 500MB, 2GB or 1GiB")
    number, unit, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" kmgt".index(unit) if unit else 0))


def memory(count: int) -> str:
    """Format bytes of memory in whole GB of 1024**3 bytes, the size that machines are sold with."""
    return f"{count / 1024**3:.0f} GB" if count >= 1024**3 else f"{count / 1024**2:.0f} MB"


def duration(span: float) -> str:
    """Format seconds: `0.4s`, `12s`, `3m 5s`, `2h 10m`, `3d 4h`."""
    if span < 9.95:
        return f"{max(span, 0):.1f}s"
    whole = round(span)
    for big, small in (("d", "h"), ("h", "m"), ("m", "s")):
        if whole >= UNITS[big]:
            return f"{whole // UNITS[big]}{big} {whole % UNITS[big] // UNITS[small]}{small}"
    return f"{whole}s"


def took(begin: str | None, end: str | None) -> str:
    """Format the time from `begin` to `end` (None: until now); "" if it has not begun."""
    if begin is None:
        return ""
    return duration((seconds(end) if end else time.time()) - seconds(begin))


def ago(moment: str) -> str:
    """Format a time as `5m ago`, or as its date if it is more than a week ago."""
    past = max(time.time() - seconds(moment), 0)
    if past > 7 * 86400:
        return moment[:10]
    for unit in ("d", "h", "m"):
        if past >= UNITS[unit]:
            return f"{int(past // UNITS[unit])}{unit} ago"
    return f"{int(past)}s ago"


def since(text: str) -> float:
    """Parse `10m`, `2h` or `1d12h` ago, or an RFC 3339 time, to seconds since the epoch."""
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        parts = re.findall(r"([\d.]+)([smhd])", text)
        return time.time() - sum(float(number) * UNITS[unit] for number, unit in parts)
    try:
        moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError as error:
        raise UsageError(f"'{text}' is not a time; write 30s, 10m, 2h, 1d or 2026-01-31T12:00:00Z") from error
    return (moment if moment.tzinfo else moment.astimezone(timezone.utc)).timestamp()
