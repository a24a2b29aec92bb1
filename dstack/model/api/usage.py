"""What jobs used, as it travels over HTTP."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

UsageKey = Literal["user", "workflow", "runner", "week"]
KEYS: tuple[UsageKey, ...] = get_args(UsageKey)


class UsageView(Struct, kw_only=True):
    """What jobs used together: those with the same `user`, `workflow`, `runner` and `week` (its Monday), as far as
    these were asked for. `attempts` counts each time that a job ran. `wait_hours` is the time in the queue."""

    user: str | None = None
    workflow: str | None = None
    runner: str | None = None
    week: str | None = None
    jobs: int
    attempts: int
    gpu_hours: float
    cpu_hours: float
    wait_hours: float
