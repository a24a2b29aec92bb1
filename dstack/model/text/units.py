"""Reads and prints every unit: sizes of disks and transfers, sizes of memory, durations and times.

As in Docker, a GB of disk or of a transfer is 1000**3 bytes, and a GB of memory is 1024**3 bytes.
"""

from __future__ import annotations

import re
from datetime import datetime, timezone
from itertools import pairwise

_UNITS = ("Kk", "Mm", "Gg", "Tt", "Pp")
_PART = r"(\.[0-9]{1,9})?"
_SIZES = ((18, " ?"), *((digits, f" ?[{unit}][Ii]?") for digits, unit in zip((15, 12, 9, 6, 3), _UNITS, strict=True)))
SIZE = f"^({'|'.join(f'[0-9]{{1,{digits}}}{_PART}{unit}' for digits, unit in _SIZES)})[Bb]?$(?!\\n)"
"""Fewer than 2**63 bytes."""
_SPANS = ((10, "s"), (8, "m"), (6, "h"), (5, "d"))
SPAN = (
    f"^([0-9]{{1,10}}{_PART}|({'|'.join(f'[0-9]{{1,{digits}}}{_PART}{unit}' for digits, unit in _SPANS)}){{1,4}})"
    r"$(?!\n)"
)
"""Little more than a thousand years, so that it can be added to any date."""

STEPS = ("", "k", "m", "g", "t", "p")
SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}

LARGEST_SIZE = 10**18
"""Bytes. Programs on the machine count them in 63 bits."""
LONGEST_SPAN = 3650 * SECONDS["d"]
"""Seconds."""

SOLD = 1000**3 / 1024**3
"""The fraction of a requested memory size that is enough. A machine or GPU sold with 16 GB reports a little less than
16 * 1024**3 bytes: the kernel or driver reserves some, or GB was meant as decimal."""


def disk_bytes(text: str) -> int:
    """Return the bytes of a size on disk: `2GB`, `2G` and `2g` are 2 * 1000**3, `2GiB` is 2 * 1024**3. A bare number is
    bytes. Raises ValueError for anything else."""
    return _bytes(text, 1000)


def memory_bytes(text: str) -> int:
    """Return the bytes of a size of memory: `2GB`, `2g` and `2GiB` are 2 * 1024**3, as in `docker run --memory`. A bare
    number is bytes. Raises ValueError for anything else."""
    return _bytes(text, 1024)


def _bytes(text: str, step: int) -> int:
    if not is_size(text):
        raise ValueError(f"'{text}' is not a size; write 512MB, 16GB or 1TB")
    number, unit, binary = re.fullmatch(r"([0-9.]+) ?([kmgtp]?)(i?)b?", text.lower()).groups()  # type: ignore[union-attr]
    factor: int = (1024 if binary else step) ** STEPS.index(unit)
    return round(float(number) * factor)


def is_size(text: str) -> bool:
    """Whether `disk_bytes` and `memory_bytes` can read the text."""
    return re.match(SIZE, text) is not None


def lacks_unit(text: str) -> bool:
    """Whether a size or duration is a bare number other than zero."""
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None and float(text) > 0


def size_words(count: float) -> str:
    """Format bytes on a disk or on their way: `1.2 GB`, `513 kB`."""
    return _words(count, 1000, ("B", "kB", "MB", "GB", "TB"))


def memory_words(count: float) -> str:
    """Format bytes of memory: `16 GB`, `512 MB`."""
    return _words(count, 1024, ("B", "KB", "MB", "GB", "TB"))


def _words(count: float, step: int, units: tuple[str, ...]) -> str:
    at = 0
    while round(count, 1) >= step and at < len(units) - 1:
        count, at = count / step, at + 1
    return f"{count:.1f}".removesuffix(".0") + f" {units[at]}"


def is_span(text: str) -> bool:
    """Whether `span` can read the text."""
    return re.match(SPAN, text) is not None


def span(text: str) -> float:
    """Return the seconds of `30s`, `5m`, `1h30m` or `2d`; a bare number is seconds, as for timeout(1). Raises
    ValueError for anything else."""
    if not is_span(text):
        raise ValueError(f"'{text}' is not a duration; write 30s, 10m, 1h30m or 2d")
    if text[-1:].isdigit():
        return float(text)
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)([smhd])", text))


def span_words(seconds: float) -> str:
    """Format seconds as one would type them: `6h`, `1h30m`, `45s`."""
    whole, words = round(seconds), ""
    for unit, length in SECONDS.items():
        count, whole = divmod(whole, length)
        words += f"{count}{unit}" if count else ""
    return words or "0s"


def took_words(seconds: float) -> str:
    """Format how long something took: `0.4s`, `12s`, `3m 5s`, `2h 10m`, `3d 4h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    for big, small in pairwise(SECONDS):
        if whole >= SECONDS[big]:
            return f"{whole // SECONDS[big]}{big} {whole % SECONDS[big] // SECONDS[small]}{small}"
    return f"{whole}s"


def age_words(seconds: float) -> str:
    """Format how long ago something was: `5m ago`."""
    whole = max(int(seconds), 0)
    unit = next((unit for unit, length in SECONDS.items() if whole >= length), "s")
    return f"{whole // SECONDS[unit]}{unit} ago"


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
    """Parse a time such as `2026-01-31T12:00:00Z` into seconds since the epoch. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    return (moment if moment.tzinfo else moment.astimezone(timezone.utc)).timestamp()
