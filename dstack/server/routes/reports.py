"""Answers that put many records together: why something is where it is, and what was used."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import cast

from dstack.engine.engine import Engine
from dstack.engine.explain import Queued, why
from dstack.errors import UsageError
from dstack.model.api.usage import KEYS, UsageKey, UsageView
from dstack.model.api.why import WhyView
from dstack.model.job.job import Job
from dstack.model.job.log_mask import needles
from dstack.model.job.status import summary
from dstack.model.text.suggest import did_you_mean
from dstack.model.text.units import rfc3339, seconds
from dstack.server.border.values import reading
from dstack.server.follow import masked
from dstack.store.lookup import jobs_named
from dstack.store.usage import usage

TAIL = 64 * 1024
"""Bytes of a log in which its last lines are looked for."""
LINES = 20


@dataclass
class ReportRoutes:
    engine: Engine

    def why(self, ref: str) -> WhyView:
        run, jobs, _ = jobs_named(self.engine.store, ref)
        status = summary([job.status for job in self.engine.store.jobs.of(run.name)])
        queued = Queued(self.engine)
        return WhyView(
            run=run.name, status=status, jobs=[why(self.engine, queued, job, self.tail(job)) for job in jobs]
        )

    async def usage(self, since: str, by: str = "user") -> list[UsageView]:
        keys = [key for key in by.split(",") if key]
        for key in keys:
            if key not in KEYS:
                raise UsageError(f"'{key}' is not {', '.join(KEYS[:-1])} or {KEYS[-1]}{did_you_mean(key, KEYS)}")
        with reading():
            begin = rfc3339(seconds(since))
        chosen = cast("list[UsageKey]", list(dict.fromkeys(keys)))
        return await asyncio.to_thread(usage, self.engine.context.layout.database, begin, rfc3339(time.time()), chosen)

    def tail(self, job: Job) -> str:
        """Return the last lines of a job's log, with its secrets masked."""
        store = self.engine.store
        start = max(0, store.logs.size(job.source) - TAIL)
        pieces = masked(store.logs, job, start, needles(store.secrets.given(job.source)))
        text = b"".join(data for _, _, data in pieces).decode(errors="replace")
        return "\n".join(text.splitlines()[-LINES:])
