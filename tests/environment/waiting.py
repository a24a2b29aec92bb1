"""Waiting for something to become true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.02
LONGEST_PAUSE = 0.25
"""Seconds between two tries."""


def until(condition: Callable[[], T], what: str, seconds: float = 30) -> T:
    """Return the condition's first true value. Raises AssertionError that names `what` if there is none in time."""
    end = time.monotonic() + seconds
    while True:
        before = time.monotonic()
        if answer := condition():
            return answer
        now = time.monotonic()
        assert now < end, f"not within {seconds:g} s: {what}"
        time.sleep(min(max(PAUSE, 3 * (now - before)), LONGEST_PAUSE))  # a look takes a quarter of a processor at most
