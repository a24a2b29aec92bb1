"""Moments by the clock that this machine counts from its boot: unlike the time of day, it never jumps."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from dstack.model.job.job import Origin, Run
from dstack.model.text.units import seconds

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot() -> str:
    """The id of this boot. Where the system has none, moments of another process can't be compared with this one's."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return f"{os.getpid()} {time.time()}"


def moment() -> Origin:
    """Return this moment. The clock also counts while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # macOS: its CLOCK_MONOTONIC counts sleep
    return Origin(boot(), "", time.clock_gettime(clock))


def age(run: Run) -> float:
    """Return how many seconds ago a run was submitted. After a reboot, and for a run that an older version accepted,
    only the time of day tells that."""
    passed = run.accepted.until(moment()) if run.accepted else None
    return passed if passed is not None else max(0.0, time.time() - seconds(run.submitted_at))
