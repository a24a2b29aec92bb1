"""Runs: submit, show, tag, remove."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from dstack.engine.retention.cache_folders import prune_caches
from dstack.engine.retention.mirror_gc import tidy
from dstack.engine.retention.orphans import Orphans
from dstack.errors import NotFoundError
from dstack.model.api.artifacts import TagRequest
from dstack.model.api.retention import DeleteRequest, PruneCachesRequest, PruneRequest, PruneRestRequest
from dstack.model.api.runs import Recipe
from dstack.model.job.job import Run
from dstack.model.job.status import Status
from dstack.server.parts import Parts, Table
from dstack.server.submit import submit
from dstack.server.tags import delete_tag, set_tag
from dstack.server.views import run_view
from dstack.store.lookup import run_named


@dataclass
class RunRoutes:
    """Endpoints."""

    parts: Parts

    async def submit(self, request: Request) -> Any:
        return await submit(self.parts.submitter, self.parts.context.layout.incoming, request.stream())

    async def runs(self, request: Request) -> Any:
        query = request.query_params
        status = Status(query["status"]) if "status" in query else None
        limit = min(int(query.get("limit", "20")), 10**9)
        runs = self.parts.context.store.runs.newest(
            limit if status is None else 10_000, workflow=query.get("workflow"), user=query.get("user")
        )
        places = self.parts.engine.positions
        views = (run_view(run, self.parts.context.store.jobs.of(run.name), places) for run in runs)
        return [view for view in views if status is None or view.status is status][:limit]

    async def run(self, request: Request) -> Any:
        run = run_named(self.parts.context.store, request.path_params["ref"])
        return run_view(run, self.parts.context.store.jobs.of(run.name), self.parts.engine.positions)

    async def diff(self, request: Request) -> Response:
        snapshot = run_named(self.parts.context.store, request.path_params["ref"]).snapshot
        mirror = self.parts.context.mirror(snapshot.repo)
        patch = await asyncio.to_thread(mirror.diff, snapshot)
        return Response(patch, media_type="application/octet-stream")

    async def recipe(self, request: Request) -> Any:
        run = run_named(self.parts.context.store, request.path_params["ref"])
        if not run.workflows:
            raise NotFoundError(f"{run.name} can't be repeated: an older server recorded it without its definitions")
        return Recipe(
            workflow=run.workflow,
            workflows=run.workflows,
            variables=run.inputs,
            snapshot=run.snapshot,
            environment=run.environment,
            gpus=run.gpus,
        )

    async def delete_runs(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=DeleteRequest)
        runs = [run_named(self.parts.context.store, ref) for ref in dict.fromkeys(wish.refs)]
        removed = await self.parts.retention.delete(runs)
        self._tidy(runs)
        return removed

    async def prune(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=PruneRequest)
        retention = self.parts.retention
        prunable = retention.prunable(wish.keep_last, wish.older_than)
        if wish.dry_run:
            return retention.told(prunable)
        removed = await retention.remove(prunable)
        self._tidy(prunable)
        return removed

    def _tidy(self, runs: Sequence[Run]) -> None:
        """Remove the code of deleted runs, and what machines kept of them."""
        self.parts.engine.poke()
        for repo in {run.snapshot.repo for run in runs}:
            self.parts.engine.background(tidy(self.parts.context, repo, most=0))

    async def prune_rest(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=PruneRestRequest)
        ruled = wish.keep_last is not None or wish.older_than is not None
        going = self.parts.retention.prunable(wish.keep_last, wish.older_than) if ruled else []
        names = {run.name for run in going}
        staying = [run for run in self.parts.context.store.runs.newest(-1) if run.name not in names]
        return await Orphans(self.parts.context, staying, images=wish.images, dry_run=wish.dry_run).prune()

    async def prune_caches(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=PruneCachesRequest)
        return await prune_caches(self.parts.context, wish)

    async def tags(self, request: Request) -> Any:
        return self.parts.context.store.tags.all()

    async def tag(self, request: Request) -> Any:
        return set_tag(self.parts.context.store, msgspec.json.decode(await request.body(), type=TagRequest))

    async def delete_tag(self, request: Request) -> Any:
        delete_tag(self.parts.context.store, request.path_params["name"])
        return {}

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [
            ("POST", "/runs", self.submit),
            ("GET", "/runs", self.runs),
            ("GET", "/runs/{ref}", self.run),
            ("GET", "/runs/{ref}/diff", self.diff),
            ("GET", "/runs/{ref}/recipe", self.recipe),
            ("POST", "/runs/delete", self.delete_runs),
            ("POST", "/prune", self.prune),
            ("POST", "/prune/caches", self.prune_caches),
            ("POST", "/prune/rest", self.prune_rest),
            ("GET", "/tags", self.tags),
            ("POST", "/tags", self.tag),
            ("DELETE", "/tags/{name}", self.delete_tag),
        ]
