"""How much of a machine is used outside dstack: measured between two samples, smoothed, and counted if it matters.

A spike doesn't matter: CPU time is averaged over about a minute. Neither does the little that every machine uses by
itself. The server's own machine is always counted as idle, because whoever works there is also who submits jobs.
"""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from dstack.commands.machine.sample import Sample
from dstack.model.runner.runner import Facts
from dstack.scheduling.types import IDLE, Load

MINUTE = 60.0
MATTERS = 0.1
"""Use outside dstack counts from this share of a machine's CPUs or memory."""
GB = 1024**3


def foreign(before: Sample, last: Sample, ours: Iterable[str]) -> Load:
    """What was used between two samples, not counting our attempts."""
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
    """Move the known load towards a new one that was measured over so many seconds."""
    weight = 1 - math.exp(-max(seconds, 0.0) / MINUTE)
    return Load(known.cpu + weight * (new.cpu - known.cpu), round(known.memory + weight * (new.memory - known.memory)))


def at_rest(facts: Facts) -> Load:
    """The load of a machine that runs nothing of dstack's, from its kernel: the load average of the last minute."""
    return Load(min(facts.load, facts.cpus), facts.memory - facts.memory_free if facts.memory_free else 0)


def counted(load: Load, facts: Facts) -> Load:
    """The load as the scheduler counts it: whole CPUs and whole GB, or nothing if it is too small to matter."""
    if facts.machine == own_machine():
        return IDLE
    cpu = math.floor(load.cpu) if load.cpu >= MATTERS * facts.cpus else 0
    return Load(cpu, load.memory // GB * GB if load.memory >= MATTERS * facts.memory else 0)


@lru_cache(maxsize=1)
def own_machine() -> str:
    """This machine's name in `Facts.machine` (templates/host/lib/prelude.sh.j2)."""
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        machine_id = path.read_text().split("\n")[0] if path.exists() else ""
        if re.fullmatch(r"[0-9a-f]+", machine_id):
            return machine_id
    return sha256(f"{platform.node()}\n".encode()).hexdigest()[:32]
