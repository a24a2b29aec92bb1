"""Jobs: show, follow, measure, stop, hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dstack.model.api.jobs import HoldAnswer, HoldRequest, StopRequest
from dstack.model.job.job import Job
from dstack.model.runner.metrics import JobMetrics
from dstack.server.follow import Follower
from dstack.server.parts import Parts, Table
from dstack.server.views import job_view, run_view
from dstack.store.lookup import job_named, jobs_named, run_named


@dataclass
class JobRoutes:
    """Endpoints."""

    parts: Parts

    async def jobs(self, request: Request) -> Any:
        query = request.query_params
        if "run" in query:
            jobs = self.parts.context.store.jobs.of(run_named(self.parts.context.store, query["run"]).name)
        else:
            jobs = self.parts.context.store.jobs.newest(min(int(query.get("limit", "20")), 10**9))
        return [job_view(job, self.parts.engine.positions.get(job.id)) for job in jobs]

    async def job(self, request: Request) -> Any:
        job = job_named(self.parts.context.store, request.path_params["ref"])
        return job_view(job, self.parts.engine.positions.get(job.id))

    async def follow(self, request: Request) -> Response:
        query = request.query_params
        offsets = dict(part.split(":") for part in query.get("from", "").split(",") if part)
        follower = Follower(
            self.parts.context,
            request.path_params["ref"],
            {job: int(offset) for job, offset in offsets.items()},
            live=query.get("follow") == "1",
            logs=query.get("logs", "1") == "1",
        )
        return StreamingResponse(follower.frames(), media_type="application/octet-stream")

    async def metrics(self, request: Request) -> Any:
        store = self.parts.context.store
        _, jobs, _ = jobs_named(store, request.path_params["ref"])
        sources = [(job, store.jobs.require(job.source)) for job in jobs]
        return [
            JobMetrics(job=job.id, workflow=job.workflow, runner=source.runner, points=store.usage_logs.read(source.id))
            for job, source in sources
        ]

    async def stop(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=StopRequest)
        store = self.parts.context.store
        stopping = store.jobs.unfinished() if wish.everything else []
        if wish.workflow is not None:
            stopping = [job for job in store.jobs.unfinished() if store.runs.require(job.run).workflow == wish.workflow]
        names = [job.run for job in stopping]
        for ref in wish.refs:
            run, jobs, _ = jobs_named(store, ref)
            stopping += jobs
            names.append(run.name)
        self.parts.engine.stop(stopping, abort=wish.abort)
        return [run_view(store.runs.require(name), store.jobs.of(name)) for name in dict.fromkeys(names)]

    async def hold(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=HoldRequest)
        chosen: dict[str, list[Job]] = {}
        for ref in wish.refs:
            run, jobs, _ = jobs_named(self.parts.context.store, ref)
            chosen.setdefault(run.name, []).extend(jobs)
        changed = {name: [job.id for job in self.parts.engine.hold(jobs, wish.user)] for name, jobs in chosen.items()}
        return HoldAnswer(
            changed={name: jobs for name, jobs in changed.items() if jobs},
            unchanged=[name for name, jobs in changed.items() if not jobs],
        )

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [
            ("GET", "/jobs", self.jobs),
            ("GET", "/jobs/{ref}", self.job),
            ("GET", "/follow/{ref}", self.follow),
            ("GET", "/metrics/{ref}", self.metrics),
            ("POST", "/stop", self.stop),
            ("POST", "/hold", self.hold),
        ]
