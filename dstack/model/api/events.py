"""Events as they travel over HTTP: what happened, when, by whom."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct, structs


class EventView(Struct, frozen=True, kw_only=True):
    """One change of the server's state.

    `id` grows with every event. `actor` is the user who asked for the change, or "server". `kind` is the noun that
    changed and how: `job.running`, `runner.drained`. `data` depends on the kind, and never holds a secret's value.
    """

    id: int
    time: str
    actor: str
    kind: str
    run: str | None
    job: str | None
    runner: str | None
    data: dict[str, Any]


class EventQuery(Struct, frozen=True, kw_only=True):
    """The parameters of `GET /events`: the newest `limit` events, from the time `since` (RFC 3339) on, of a run or job,
    or of a runner."""

    ref: str | None = None
    runner: str | None = None
    since: str | None = None
    limit: Annotated[int, Meta(ge=0, le=10**9)] | None = None

    def parameters(self) -> dict[str, str]:
        """Return those that are set, as text."""
        return {name: str(value) for name, value in structs.asdict(self).items() if value is not None}
