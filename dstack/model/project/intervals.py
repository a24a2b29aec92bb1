"""The numbers of an interval: which they are, how many, and how they are written."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from dstack.model.project.workflow import NUMBERS, Interval

WHOLE = re.compile(r"[-+]?[0-9]+")
LARGEST = 2**53
"""Whole numbers beyond this are not exact in every program."""
MOST_STEPS = 10**9
DIGITS = 6
"""A random fraction is one of about a million values of its interval, so that it is short to read."""
PLAIN = (-9, 15)
"""Numbers with exponents in between are written without one."""


def trouble(interval: Interval) -> str | None:
    """Return why there is no such interval, in words that follow its name; None if there is."""
    written = (interval.min, interval.max, *([interval.step] if interval.step is not None else []))
    if not all(re.match(NUMBERS, text) for text in written):
        return None  # reported with the number itself
    low, high = float(interval.min), float(interval.max)
    finite = all(math.isfinite(float(text)) for text in written) and math.isfinite(high - low)
    if not finite or (whole(interval) and max(-low, high) > LARGEST):
        return "has a number that is too large"
    if not low < high:
        return f"has min {interval.min}, which is not below max {interval.max}"
    if interval.scale == "log" and low <= 0:
        return f"has min {interval.min}, and 'scale: log' needs one above 0"
    if interval.step is None:
        return None
    if interval.scale == "log":
        return "has both 'step' and 'scale: log'; leave out one"
    return _step_trouble(interval, float(interval.step), high - low)


def _step_trouble(interval: Interval, step: float, length: float) -> str | None:
    if not 0 < step <= length:
        return f"has step {interval.step}, which is not between 0 and max - min"
    return "has more than a billion steps; leave out 'step'" if length / step > MOST_STEPS else None


def whole(interval: Interval) -> bool:
    """Whether its values are whole numbers."""
    return all(text is None or WHOLE.fullmatch(text) for text in (interval.min, interval.max, interval.step))


def count(interval: Interval) -> int | None:
    """Return how many values it has; None for fractions without a step, which are too many to count."""
    if interval.step is None and not whole(interval):
        return None
    return int((Decimal(interval.max) - Decimal(interval.min)) / Decimal(interval.step or "1")) + 1


def at(interval: Interval, index: int) -> str:
    """Return the value with this number, from 0, of an interval that can be counted."""
    value = Decimal(interval.min) + index * Decimal(interval.step or "1")
    return str(int(value)) if whole(interval) else text(value)


def index_of(interval: Interval, value: str) -> int | None:
    """Return the number of a value of an interval that can be counted; None if it is not one of them."""
    steps = (Decimal(value) - Decimal(interval.min)) / Decimal(interval.step or "1")
    return int(steps) if steps == int(steps) and 0 <= steps < (count(interval) or 0) else None


def between(interval: Interval, share: float) -> str:
    """Return the value that lies at a share (from 0 up to 1) of the interval, by its scale."""
    low, high = float(interval.min), float(interval.max)
    total = count(interval)
    if total is not None and interval.scale == "linear":
        return at(interval, min(int(share * total), total - 1))
    if total is not None:  # each whole number has its part of the logarithmic scale around it
        first, last = math.log(low - 0.5), math.log(high + 0.5)
        return str(min(max(round(math.exp(first + share * (last - first))), int(low)), int(high)))
    if interval.scale == "linear":
        return rounded(interval, low + share * (high - low))
    return rounded(interval, math.exp(math.log(low) + share * (math.log(high) - math.log(low))))


def rounded(interval: Interval, value: float) -> str:
    """Return a fraction of the interval as text, no longer than its size needs."""
    low, high = float(interval.min), float(interval.max)
    unit = high - low if interval.scale == "linear" else min(abs(value), high - low)
    near = min(max(round(value, DIGITS - 1 - math.floor(math.log10(unit))), low), high)
    return text(Decimal(repr(near + 0.0)))  # never -0.0


def contains(interval: Interval, value: str) -> bool:
    """Whether a text is one of the interval's values."""
    if not re.match(NUMBERS, value) or not math.isfinite(float(value)):
        return False
    if not float(interval.min) <= float(value) <= float(interval.max):
        return False
    if whole(interval) and not WHOLE.fullmatch(value):
        return False
    return count(interval) is None or index_of(interval, value) is not None


def text(value: Decimal) -> str:
    """Write a number so that YAML 1.1, JSON, C and Python read it as a number: one that needs an exponent gets a dot
    and the exponent's sign, as in `1.0e-12`."""
    if value == 0 or PLAIN[0] <= value.adjusted() <= PLAIN[1]:
        return format(value, "f")
    digits = "".join(map(str, value.normalize().as_tuple().digits))
    return f"{'-' if value < 0 else ''}{digits[0]}.{digits[1:] or '0'}e{value.adjusted():+03d}"
