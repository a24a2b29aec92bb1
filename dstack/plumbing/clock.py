"""Moments by the clock that this machine counts from its boot: unlike the time of day, it never jumps. It counts while
the machine sleeps, too."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from dstack.model.job.job import Origin, Run
from dstack.model.text.units import seconds

SET = 1.0
"""Seconds: a smaller change of the time of day is adjustment, which nobody has to see."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot() -> str:
    """The id of this boot. Where the system has none, moments of another process can't be compared with this one's."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return f"{os.getpid()} {time.time()}"


def steady() -> float:
    """Return the seconds since the boot."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))  # macOS: the latter counts sleep


class WallClock:
    """The time of day of moments by `steady`, as the clock is set now: the same for one moment until somebody sets it
    by more than a second."""

    def __init__(self) -> None:
        self.offset = 0.0

    def at(self, moment: float) -> float:
        """Return the time of day (in seconds) of a moment."""
        offset = time.time() - steady()
        if abs(offset - self.offset) > SET:
            self.offset = offset
        return self.offset + moment


time_of_day = WallClock().at


def moment() -> Origin:
    """Return this moment."""
    return Origin(boot(), "", steady())


def age(run: Run) -> float:
    """Return how many seconds ago a run was submitted. After a reboot, and for a run that an older version accepted,
    only the time of day tells that."""
    passed = run.accepted.until(moment()) if run.accepted else None
    return passed if passed is not None else max(0.0, time.time() - seconds(run.submitted_at))
