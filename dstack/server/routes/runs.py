"""Runs: submit, show, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dstack.engine.engine import Engine
from dstack.engine.retention.prune import Orphans, prune_caches, start_tidying
from dstack.engine.retention.retention import Retention, batches
from dstack.engine.submission.submit import Submitter, require_code
from dstack.errors import NotFoundError
from dstack.model.api.retention import (
    CacheFolder,
    DeleteRequest,
    Leftover,
    PruneCachesRequest,
    PruneRequest,
    PruneRestRequest,
    Removed,
)
from dstack.model.api.runs import Plan, Recipe, RunView
from dstack.model.job.job import Run
from dstack.model.job.status import Status
from dstack.server.border.values import Limit
from dstack.server.endpoints import array
from dstack.server.roles import caller, require_own
from dstack.server.submit import submit
from dstack.server.views import run_view, shown
from dstack.store.lookup import run_named


@dataclass
class RunRoutes:
    engine: Engine
    retention: Retention

    async def submit(self, request: Request) -> RunView | Plan:
        submitter = Submitter(self.engine.context, self.engine)
        size = int(request.headers.get("content-length") or 0)
        return await submit(submitter, self.engine.context.layout.incoming, request.stream(), size)

    def runs(
        self,
        workflow: str | None = None,
        status: Status | None = None,
        user: str | None = None,
        mine: bool = False,
        limit: Limit = 20,
    ) -> list[RunView]:
        user = caller().name or user if mine else user
        runs = self.engine.store.runs.newest(limit, workflow=workflow, user=user, status=status)
        return [self._view(run) for run in runs]

    def run(self, ref: str) -> RunView:
        return self._view(run_named(self.engine.store, ref))

    def _view(self, run: Run) -> RunView:
        jobs = [self.engine.context.told(job) for job in self.engine.store.jobs.of(run.name)]
        return run_view(run, jobs, self.engine.scheduler.positions)

    async def diff(self, ref: str) -> Response:
        run = run_named(self.engine.store, ref)
        await require_code(self.engine.context, run)
        patch = await asyncio.to_thread(self.engine.context.mirror(run.snapshot.repo).diff, run.snapshot)
        return Response(patch, media_type="application/octet-stream")

    def recipe(self, ref: str) -> Recipe:
        run = run_named(self.engine.store, ref)
        if not run.workflows:
            raise NotFoundError(f"{run.name} can't be repeated: an older server recorded it without its definitions")
        return shown(run, Recipe, variables=run.inputs)

    async def delete(self, wish: DeleteRequest) -> list[Removed]:
        runs = [run_named(self.engine.store, ref) for ref in dict.fromkeys(wish.refs)]
        for run in runs:
            require_own(run)
        removed = await self.retention.delete(runs)
        self._tidy({run.snapshot.repo for run in runs})
        return removed

    async def prune(self, wish: PruneRequest) -> list[Removed] | Response:
        prunable = await self.retention.prunable(wish.keep_last, wish.older_than)
        if wish.dry_run:
            return StreamingResponse(array(self.retention.pages(prunable)), media_type="application/json")
        repos = {repo for page in batches(prunable) for repo in self.engine.store.runs.repos(page)}
        removed = await self.retention.remove(prunable)
        self._tidy(repos)
        return removed

    def _tidy(self, repos: Collection[str]) -> None:
        """Remove the code of deleted runs, and what machines kept of them."""
        self.engine.poke()
        for repo in repos:
            start_tidying(self.engine.context, repo, most=0)

    async def prune_rest(self, wish: PruneRestRequest) -> list[Leftover]:
        going = set(await self.retention.prunable(wish.keep_last, wish.older_than))
        return await Orphans(self.engine.context, going, images=wish.images, dry_run=wish.dry_run).prune()

    async def prune_caches(self, wish: PruneCachesRequest) -> list[CacheFolder]:
        return await prune_caches(self.engine.context, wish)
