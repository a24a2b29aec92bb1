"""What others than dstack's jobs use of a machine: measured between two samples, smoothed, counted where it matters.

A spike doesn't matter: processor time counts as it was over about a minute. Neither does what every machine uses by
itself. The machine on which the server itself runs is not judged so: who works there is who submits.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from dstack.commands.sample import Sample
from dstack.engine.capacity import IDLE, Load
from dstack.model.runner import Facts

MINUTE = 60.0
MATTERS = 0.1
"""The share of a machine's processors or memory that others may use before it counts."""
GB = 1024**3


def foreign(before: Sample, last: Sample, ours: Iterable[str]) -> Load:
    """What was used between two samples beside our attempts."""
    seconds = max(last.uptime - before.uptime, 0.01)
    share = (last.busy - before.busy) / max(last.all - before.all, 1)
    cpu, memory = share * last.cpus, last.memory_used
    for attempt in ours:
        if attempt in last.jobs:
            used, held = last.jobs[attempt]
            cpu -= (used - before.jobs.get(attempt, (0.0, 0))[0]) / seconds
            memory -= held
    return Load(max(cpu, 0.0), max(memory, 0))


def smoothed(known: Load, new: Load, seconds: float) -> Load:
    """What is known, after so many seconds of something new."""
    weight = 1 - math.exp(-max(seconds, 0.0) / MINUTE)
    return Load(known.cpu + weight * (new.cpu - known.cpu), round(known.memory + weight * (new.memory - known.memory)))


def at_rest(facts: Facts) -> Load:
    """What is used of a machine where dstack runs nothing, by what its kernel says: the load of the last minute."""
    return Load(min(facts.load, facts.cpus), facts.memory - facts.memory_free if facts.memory_free else 0)


def counted(load: Load, facts: Facts) -> Load:
    """As jobs are placed by it: whole CPUs and whole GB, where they matter."""
    if facts.machine == own_machine():
        return IDLE
    cpu = math.floor(load.cpu) if load.cpu >= MATTERS * facts.cpus else 0
    return Load(cpu, load.memory // GB * GB if load.memory >= MATTERS * facts.memory else 0)


@lru_cache(maxsize=1)
def own_machine() -> str:
    """What this machine is called in `Facts.machine` (templates/prelude.sh.j2)."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        known = path.read_text().split("\n")[0] if path.exists() else ""
        if re.fullmatch(r"[0-9a-f]+", known):
            return known
    return sha256(f"{platform.node()}\n".encode()).hexdigest()[:32]
