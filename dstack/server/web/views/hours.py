"""What was used: hours of GPUs and CPUs by user, workflow, runner or week."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from dstack.engine.engine import Engine
from dstack.errors import UsageError
from dstack.model.api.usage import KEYS
from dstack.model.text.units import is_span, rfc3339, span
from dstack.server.routes.reports import ReportRoutes

SPANS = ("1d", "7d", "30d", "90d", "365d")


@dataclass
class UsagePage:
    engine: Engine

    async def hours(self, since: str = "30d", by: str = "user") -> dict[str, Any]:
        """Show the use since so long ago, such as `30d`, by one of KEYS."""
        if not is_span(since):
            raise UsageError(f"'{since}' is not a duration", hint="write 30s, 10m, 1h30m or 2d")
        if by not in KEYS:
            raise UsageError(f"'{by}' is not {', '.join(KEYS[:-1])} or {KEYS[-1]}")
        begin = rfc3339(max(0.0, time.time() - span(since)))
        rows = await ReportRoutes(self.engine).usage(begin, by)
        if by == "week":
            rows.sort(key=lambda row: row.week or "", reverse=True)
        most = max((row.gpu_hours for row in rows), default=0.0) or max((row.cpu_hours for row in rows), default=0.0)
        measure = "gpu_hours" if any(row.gpu_hours for row in rows) else "cpu_hours"
        return {
            "rows": [(getattr(row, by) or "–", row, 100 * getattr(row, measure) / (most or 1)) for row in rows],
            "by": by,
            "keys": KEYS,
            "since": since,
            "spans": SPANS if since in SPANS else (since, *SPANS),
            "begin": begin,
        }
