"""Runs: submit, show, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from dstack.engine.engine import Engine
from dstack.engine.retention.prune import Orphans, prune_caches, start_tidying
from dstack.engine.retention.retention import Retention
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
from dstack.model.metrics.conditions import conditions, order
from dstack.server.border.values import Limit
from dstack.server.roles import caller, require_own
from dstack.server.submit import submit
from dstack.server.views import run_view, shown
from dstack.store.lookup import run_named
from dstack.store.search import Search, find


@dataclass
class RunRoutes:
    engine: Engine
    retention: Retention

    async def submit(self, request: Request) -> RunView | Plan:
        submitter = Submitter(self.engine.context, self.engine)
        size = int(request.headers.get("content-length") or 0)
        return await submit(submitter, self.engine.context.layout.incoming, request.stream(), size)

    async def runs(
        self,
        workflow: str | None = None,
        status: Status | None = None,
        user: str | None = None,
        mine: bool = False,
        limit: Limit = 20,
        where: str = "",
        sort: str = "",
        names: str = "",
    ) -> list[RunView]:
        """Answer with runs, the newest first. `where` are conditions on variables and metrics, `sort` is what to sort
        by, and `names` are variables and metrics that some run has to have, separated by commas."""
        user, most = caller().name or user if mine else user, limit if status is None else 10_000
        store = self.engine.store
        if where or sort or names:
            search = Search(
                workflow=workflow,
                user=user,
                conditions=tuple(conditions(where)),
                order=order(sort) if sort else None,
                names=tuple(name for name in names.split(",") if name),
                limit=most,
            )
            found = await asyncio.to_thread(find, store.database.path, search)
            runs = [run for name in found if (run := store.runs.get(name)) is not None]
        else:
            runs = store.runs.newest(most, workflow=workflow, user=user)
        views = (self._view(run) for run in runs)
        return [view for view in views if status is None or view.status is status][:limit]

    def run(self, ref: str) -> RunView:
        return self._view(run_named(self.engine.store, ref))

    def _view(self, run: Run) -> RunView:
        jobs = [self.engine.context.told(job) for job in self.engine.store.jobs.of(run.name)]
        return run_view(run, jobs, self.engine.scheduler.positions, metrics=self.engine.store.metrics.of(jobs))

    async def diff(self, ref: str) -> Response:
        run = run_named(self.engine.store, ref)
        await require_code(self.engine.context, run.name, run.workflow, run.snapshot)
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
        self._tidy(runs)
        return removed

    async def prune(self, wish: PruneRequest) -> list[Removed]:
        prunable = self.retention.prunable(wish.keep_last, wish.older_than)
        if wish.dry_run:
            return self.retention.told(prunable)
        removed = await self.retention.remove(prunable)
        self._tidy(prunable)
        return removed

    def _tidy(self, runs: Sequence[Run]) -> None:
        """Remove the code of deleted runs, and what machines kept of them."""
        self.engine.poke()
        for repo in {run.snapshot.repo for run in runs}:
            start_tidying(self.engine.context, repo, most=0)

    async def prune_rest(self, wish: PruneRestRequest) -> list[Leftover]:
        ruled = wish.keep_last is not None or wish.older_than is not None
        going = self.retention.prunable(wish.keep_last, wish.older_than) if ruled else []
        names = {run.name for run in going}
        staying = [run for run in self.engine.store.runs.newest(-1) if run.name not in names]
        return await Orphans(self.engine.context, staying, images=wish.images, dry_run=wish.dry_run).prune()

    async def prune_caches(self, wish: PruneCachesRequest) -> list[CacheFolder]:
        return await prune_caches(self.engine.context, wish)
