"""A run: its jobs, its log, what it used, its code and its events."""

from __future__ import annotations

import asyncio
import csv
import io
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response, StreamingResponse

from dstack.engine.engine import Engine
from dstack.engine.submission.submit import require_code
from dstack.errors import DstackError, NotFoundError
from dstack.model.job.job import Job, Run
from dstack.model.job.log_mask import needles
from dstack.model.job.status import Status
from dstack.server.border.values import Offset
from dstack.server.roles import owns
from dstack.server.views import job_view, run_view
from dstack.server.web import html
from dstack.server.web.log.search import search
from dstack.server.web.log.tail import tail_of
from dstack.server.web.log.window import WINDOW, LogSource, window_at, window_before
from dstack.server.web.views.chosen import chosen_of
from dstack.server.web.views.code import Patch, patch_of
from dstack.server.web.views.graph import graph_of
from dstack.server.web.views.metrics import rows_of
from dstack.server.web.views.runs import tags_by_run
from dstack.server.web.views.timeline import timeline_of
from dstack.server.web.views.usage import series_of, thinned
from dstack.store.lookup import run_named

EVENTS = 500
"""Most events of a run that a page shows."""


@dataclass
class RunPages:
    engine: Engine

    def head(self, name: str) -> tuple[Run, list[Job], dict[str, Any]]:
        """Return a run, its jobs, and what all of its pages show of it."""
        run = run_named(self.engine.store, name)
        jobs = [self.engine.context.told(job) for job in self.engine.store.jobs.of(run.name)]
        view = run_view(run, jobs, self.engine.scheduler.positions)
        return (
            run,
            jobs,
            {
                "run": view,
                "record": run,
                "own": owns(run),
                "tags": tags_by_run(self.engine, {run.name}).get(run.name, []),
                "held": any(job.held for job in jobs),
                "holdable": any(job.status is Status.QUEUED and not job.held for job in jobs),
            },
        )

    async def overview(self, name: str, job: str | None = None) -> dict[str, Any]:
        run, jobs, head = self.head(name)
        chosen = chosen_of(run, jobs, job)
        events = self.engine.store.events.select(EVENTS, run=run.name)
        source = self.source(chosen) if chosen else None
        window = await asyncio.to_thread(window_before, source, source.size) if source else None
        points = await asyncio.to_thread(self.engine.store.logs.usage, chosen.source) if chosen else []
        return {
            **head,
            "jobs": [(each, job_view(each, self.engine.scheduler.positions.get(each.id))) for each in jobs],
            "chosen": chosen,
            "graph": graph_of(jobs),
            "timeline": timeline_of(jobs, events),
            "series": series_of(points),
            "metrics": rows_of(list(self.engine.store.metrics.summaries(chosen.source).values()) if chosen else []),
            "window": window,
            "log_path": log_path(run, chosen),
            "tail": tail_of(source, log_path(run, chosen), window) if source and window else None,
        }

    async def log(
        self,
        name: str,
        job: str | None = None,
        at: Offset | None = None,
        until: Offset | None = None,
        q: str | None = None,
        since: Offset = 0,
    ) -> dict[str, Any]:
        """Show a window of a log: from byte `at`, or up to byte `until`, or its end, which goes on. With `q`, the lines
        from byte `since` on that contain it."""
        run, jobs, head = self.head(name)
        chosen = chosen_of(run, jobs, job)
        if chosen is None:
            raise NotFoundError(f"{run.name} has no job")
        source = self.source(chosen)
        find, where = (window_at, at) if at is not None else (window_before, source.size if until is None else until)
        window = await asyncio.to_thread(find, source, where)
        follows = at is None and until is None
        hits = await asyncio.to_thread(search, source, q, since) if q else None
        path = log_path(run, chosen)
        return {
            **head,
            "jobs": jobs,
            "chosen": chosen,
            "window": window,
            "log_path": path,
            "tail": tail_of(source, path, window) if follows else None,
            "q": q,
            "hits": hits,
        }

    def raw(self, name: str, job: str) -> Response:
        """Send a whole log as a file, with secrets masked."""
        run, jobs, _ = self.head(name)
        chosen = chosen_of(run, jobs, job)
        if chosen is None:
            raise NotFoundError(f"{run.name} has no job '{job}'")
        source = self.source(chosen)
        size = source.size

        async def pieces() -> Any:
            for at in range(0, size, 4 * WINDOW):
                yield await asyncio.to_thread(source.read, at, min(size, at + 4 * WINDOW))

        return StreamingResponse(pieces(), headers=attached(f"{run.name}-{chosen.workflow}.log"))

    def source(self, job: Job) -> LogSource:
        store = self.engine.store
        return LogSource(store.logs, job.source, needles(store.secrets.given(job.source)), job.finished)

    async def code(self, name: str) -> dict[str, Any]:
        run, _, head = self.head(name)
        patch: Patch | None = None
        trouble: DstackError | None = None
        try:
            await require_code(self.engine.context, run.name, run.workflow, run.snapshot)
            mirror = self.engine.context.mirror(run.snapshot.repo)
            patch = patch_of(await asyncio.to_thread(mirror.diff, run.snapshot))
        except DstackError as error:
            trouble = error
        return {**head, "snapshot": run.snapshot, "patch": patch, "trouble": trouble}

    def events(self, name: str) -> dict[str, Any]:
        run, jobs, head = self.head(name)
        after = self.engine.store.events.before_newest(EVENTS, run=run.name)
        found = self.engine.store.events.select(EVENTS, after=after, run=run.name)
        return {**head, "events": found[::-1], "timeline": timeline_of(jobs, found), "cut": after > 0}

    async def usage(self, name: str, job: str, csv: bool = False) -> Response:
        """Send what a job used, as columns for a chart or as a file."""
        run, jobs, _ = self.head(name)
        chosen = chosen_of(run, jobs, job)
        points = await asyncio.to_thread(self.engine.store.logs.usage, chosen.source) if chosen else []
        columns = await asyncio.to_thread(thinned, points)
        if not csv:
            return Response(html.as_json(columns), media_type="application/json")
        return Response(table(columns), media_type="text/csv", headers=attached(f"{run.name}-{job}-usage.csv"))


def log_path(run: Run, job: Job | None) -> str:
    """Return the path of the page with a job's log, with the beginning of its query."""
    return f"/runs/{html.part(run.name)}/log{html.query(job=job and job.id)}"


def table(columns: dict[str, list[float | None]]) -> str:
    """Return columns as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def attached(name: str) -> dict[str, str]:
    """Return the headers of a file that the browser stores and never shows (RFC 6266)."""
    plain = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in name)
    return {
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{html.part(name)}",
        "Content-Type": "application/octet-stream",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }
