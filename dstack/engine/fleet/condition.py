"""What the last probe of a runner found."""

from __future__ import annotations

from dataclasses import dataclass

from dstack.model.runner.runner import Finding


@dataclass
class Condition:
    """The result of a runner's last probe. `checked` and `failing_since` are in monotonic seconds, `silent_since` in
    seconds since the boot. `patient`: the runner may recover, so jobs wait for it. `failures` counts the probes since
    it was ready."""

    state: str
    reason: str | None = None
    fix: str | None = None
    latency: float | None = None
    checked: float = 0.0
    failing_since: float | None = None
    silent_since: float | None = None
    patient: bool = False
    findings: tuple[Finding, ...] = ()
    failures: int = 0
