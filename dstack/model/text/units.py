"""Parses and formats sizes and durations."""

from __future__ import annotations

import re
from datetime import datetime, timezone

SIZE = r"^[0-9]+(\.[0-9]+)? ?([KMGT]i?)?B?$(?!\n)"
SPAN = r"^([0-9]+(\.[0-9]+)?|([0-9]+(\.[0-9]+)?[smhd])+)$(?!\n)"

STEPS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

SOLD = 1000**3 / 1024**3
"""The fraction of a requested size that is enough. A machine or GPU sold with 16 GB reports a little less than
16 * 1024**3 bytes: the kernel or driver reserves some, or GB was meant as decimal."""


def size(text: str) -> int:
    """Return bytes. `16GB`, `16G` and `16GiB` are 16 * 1024**3, as in `docker run --memory`. A bare number is bytes."""
    match = re.fullmatch(r"([0-9.]+) ?([KMGT]?)i?B?", text)
    if match is None:
        raise ValueError(f"'{text}' is not a size; write 512MB, 16GB or 1TB")
    factor: int = 1024 ** STEPS[match[2]]
    return round(float(match[1]) * factor)


def span(text: str) -> float:
    """Return the seconds of `30s`, `5m`, `1h30m` or `2d`; a bare number is seconds, as for timeout(1)."""
    if not re.match(SPAN, text):
        raise ValueError(f"'{text}' is not a duration; write 30s, 10m, 1h30m or 2d")
    if text[-1:].isdigit():
        return float(text)
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)([smhd])", text))


def size_words(count: int) -> str:
    """Format bytes: `40 GB`, `1.5 GB`, `512 MB`."""
    for unit, step in (("TB", 4), ("GB", 3), ("MB", 2), ("KB", 1)):
        if count >= 1024**step:
            return f"{count / 1024**step:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} B"


def decimal_words(count: int) -> str:
    """Format bytes in decimal units, as Docker does: `1.2 GB`, `513 kB`."""
    for unit, step in (("TB", 4), ("GB", 3), ("MB", 2), ("kB", 1)):
        if count >= 1000**step:
            return f"{count / 1000**step:.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} B"


def span_words(seconds: float) -> str:
    """Format seconds: `6h`, `1h30m`, `45s`."""
    whole, words = round(seconds), ""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if whole >= length:
            words += f"{whole // length}{unit}"
            whole %= length
    return words or "0s"


def ago_words(seconds: float) -> str:
    """Format how long ago something was, in coarse steps so that repeated output rarely changes."""
    for unit, length, step in (("d", 86400, 1), ("h", 3600, 1), ("min", 60, 5)):
        if seconds >= length * step:
            return f"{int(seconds // (length * step)) * step} {unit} ago"
    return "a moment ago"


def rfc3339(seconds: float) -> str:
    """Format seconds since the epoch as `2026-01-31T12:00:00.000Z`."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(text: str) -> float:
    """Parse `rfc3339` output back into seconds since the epoch."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
