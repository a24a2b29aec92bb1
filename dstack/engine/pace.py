"""How often machines are looked at in the background: what that costs is kept to a share of their processors."""

from __future__ import annotations

SAMPLING = 0.002
"""The share of a machine's processors that samples may take."""
LOOKING = 0.001
"""The share that probes may take."""
SESSION = 0.005
"""Processor seconds of sshd for one command over a kept connection, which the command itself can't see."""


def pause(cost: float, cpus: int, share: float) -> float:
    """Seconds between two commands of this cost, in processor seconds, that keep to the share."""
    return (cost + SESSION) / (share * max(cpus, 1))
