"""The methods and the states of sweeps."""

from __future__ import annotations

from enum import Enum


class SweepMethod(str, Enum):
    """How the values of the next trial are chosen."""

    GRID = "grid"
    RANDOM = "random"
    TPE = "tpe"


class SweepStatus(str, Enum):
    """The `status` of a sweep. It is done if a trial is, unless too many failed."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
