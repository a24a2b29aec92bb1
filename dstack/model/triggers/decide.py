"""Which scheduled times run, and what a time does if an earlier run of its trigger has not ended."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from msgspec import Struct

from dstack.model.triggers.cron import Cron

LATE = 60.0
"""Seconds after which a time counts as missed."""
JUMP = 60.0
"""Seconds by which a clock that was set back has to be behind before the schedule follows it."""
MOST = 1000
"""How many missed times run, and how many ticks wait for one trigger."""


class Due(Struct, frozen=True):
    """The scheduled times to run now, in order, the newest time that won't run, and from where to look next (seconds
    since the epoch)."""

    times: tuple[float, ...]
    skipped: float | None
    position: float


def due(cron: Cron, position: float, now: float, missed: str, deadline: float | None) -> Due:
    """Decide about the times after `position` up to `now`. `missed` is last, skip or all; times longer ago than
    `deadline` seconds are not made up for. After a clock was set back, the schedule follows it."""
    if position > now + JUMP:
        return Due((), None, now)
    found = cron.newest(position, now, MOST if missed == "all" else 1)
    if not found:
        return Due((), None, position)
    late = [moment for moment in found if moment <= now - LATE]
    punctual = [moment for moment in found if moment > now - LATE]
    wanted = [moment for moment in late if deadline is None or now - moment <= deadline]
    if missed == "skip":
        wanted = []
    elif missed == "last":
        wanted = [] if punctual else wanted[-1:]
    run = [*wanted[-MOST:], *punctual]
    skipped = [moment for moment in late if moment not in run]
    return Due(tuple(run), skipped[-1] if skipped else None, found[-1])


class Act(Enum):
    """What becomes of a tick."""

    SUBMIT = "submit"
    SKIP = "skip"
    WAIT = "wait"
    REPLACE = "replace"


def overlap(rule: str, unfinished: Sequence[str], *, made_up: bool = False) -> Act:
    """Decide about a tick, given the unfinished runs of its trigger. One that is made up for with others of its kind
    waits for them, because each is to run in order."""
    if not unfinished or rule == "allow":
        return Act.SUBMIT
    if rule == "queue" or made_up:
        return Act.WAIT
    return Act.REPLACE if rule == "replace" else Act.SKIP
