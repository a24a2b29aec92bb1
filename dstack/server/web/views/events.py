"""What happened: the event log, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dstack.engine.engine import Engine
from dstack.server.border.values import Offset

ROWS = 100


@dataclass
class EventsPage:
    engine: Engine

    def events(self, run: str | None = None, runner: str | None = None, before: Offset | None = None) -> dict[str, Any]:
        """Show the events of a run, of a runner, or all; with `before`, those with a lower id."""
        about = {name: value for name, value in (("run", run), ("runner", runner)) if value is not None}
        found = self.engine.store.events.newest(ROWS + 1, before=before, **about)
        return {
            "events": found[:ROWS],
            "filters": {"run": run, "runner": runner},
            "before": before,
            "older": found[ROWS - 1].id if len(found) > ROWS else None,
        }
