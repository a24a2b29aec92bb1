"""Jobs: show, follow, measure, stop, hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from dstack.engine.engine import Engine
from dstack.model.api.jobs import HoldAnswer, HoldRequest, JobView, StopRequest
from dstack.model.api.runs import RunView
from dstack.model.job.job import Job
from dstack.model.runner.metrics import JobMetrics
from dstack.model.text.units import seconds
from dstack.server.border.values import Limit, reading, sound
from dstack.server.follow import Begin, Follower, Recent
from dstack.server.roles import caller, owns, require_own
from dstack.server.views import job_view, run_view
from dstack.store.lookup import job_named, jobs_named, run_named


@dataclass
class JobRoutes:
    engine: Engine
    recent: Recent = field(default_factory=Recent)

    def jobs(self, run: str | None = None, limit: Limit = 20) -> list[JobView]:
        store = self.engine.store
        jobs = store.jobs.newest(limit) if run is None else store.jobs.of(run_named(store, run).name)
        jobs = [self.engine.context.told(job) for job in jobs]
        return [job_view(job, self.engine.scheduler.positions.get(job.id)) for job in jobs]

    def job(self, ref: str) -> JobView:
        job = self.engine.context.told(job_named(self.engine.store, ref))
        return job_view(job, self.engine.scheduler.positions.get(job.id))

    def follow(
        self,
        request: Request,
        ref: str,
        follow: bool = False,
        logs: bool = True,
        tail: Limit | None = None,
        since: str | None = None,
    ) -> Response:
        given = request.query_params.get("from", "")
        with reading():
            offsets = {job: offset_of(text) for job, text in (part.split(":") for part in given.split(",") if part)}
            begin = Begin(tail, seconds(since) if since is not None else None)
        follower = Follower(self.engine.context, ref, offsets, live=follow, logs=logs, begin=begin, recent=self.recent)
        return StreamingResponse(follower.frames(), media_type="application/octet-stream")

    def metrics(self, ref: str) -> list[JobMetrics]:
        store = self.engine.store
        sources = [(job, store.jobs.require(job.source)) for job in jobs_named(store, ref)[1]]
        return [
            JobMetrics(job=job.id, workflow=job.workflow, runner=source.runner, points=store.logs.usage(source.id))
            for job, source in sources
        ]

    def stop(self, wish: StopRequest) -> list[RunView]:
        store = self.engine.store
        stopping = store.jobs.unfinished() if wish.everything else []
        if wish.workflow is not None:
            stopping = [job for job in store.jobs.unfinished() if store.runs.require(job.run).workflow == wish.workflow]
        stopping = [job for job in stopping if owns(store.runs.require(job.run))]
        names = [job.run for job in stopping]
        for ref in wish.refs:
            run, jobs, _ = jobs_named(store, ref)
            require_own(run)
            stopping += jobs
            names.append(run.name)
        self.engine.stop(stopping, abort=wish.abort)
        return [run_view(store.runs.require(name), store.jobs.of(name)) for name in dict.fromkeys(names)]

    def hold(self, wish: HoldRequest) -> HoldAnswer:
        chosen: dict[str, list[Job]] = {}
        for ref in wish.refs:
            run, jobs, _ = jobs_named(self.engine.store, ref)
            require_own(run)
            chosen.setdefault(run.name, []).extend(jobs)
        holder = wish.user and (caller().name or wish.user)
        changed = {name: [job.id for job in self.engine.hold(jobs, holder)] for name, jobs in chosen.items()}
        return HoldAnswer(
            changed={name: jobs for name, jobs in changed.items() if jobs},
            unchanged=[name for name, jobs in changed.items() if not jobs],
        )


def offset_of(text: str) -> int:
    """Parse an offset in bytes. Raises ValueError for anything else."""
    if not text.isdecimal():
        raise ValueError(f"'{text}' is not an offset")
    return sound(int(text))
