"""How often machines are probed and sampled in the background, so that it costs only a small share of their CPUs."""

from __future__ import annotations

SAMPLING = 0.002
"""The share of a machine's CPUs that samples may use."""
LOOKING = 0.001
"""The share that probes may use."""
SESSION = 0.005
"""CPU seconds that sshd spends on one command over an open connection; the command itself can't measure them."""


def pause(cost: float, cpus: int, share: float) -> float:
    """Seconds between two commands of this cost (in CPU seconds) that keep to the share."""
    return (cost + SESSION) / (share * max(cpus, 1))
