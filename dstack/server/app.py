"""The HTTP API: routes, and how errors are told."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dstack import __version__
from dstack.engine.context import Context
from dstack.engine.engine import Engine
from dstack.engine.retention import Retention
from dstack.errors import ConflictError, DstackError, NotFoundError, TryAgainError, UnauthorizedError, UsageError
from dstack.hosts.own import own_key
from dstack.model import wire
from dstack.model.api import (
    API,
    AddRunner,
    ArtifactView,
    DeleteRequest,
    Drain,
    HoldAnswer,
    HoldRequest,
    Problem,
    PruneRequest,
    Recipe,
    SecretView,
    ServerConfig,
    ServerKey,
    ServerStatus,
    SetSecret,
    StopRequest,
    TagRequest,
)
from dstack.model.environment import check_name
from dstack.model.job import Job
from dstack.model.metrics import JobMetrics
from dstack.model.status import Status
from dstack.model.times import rfc3339
from dstack.repo.mirror import MissingBaseError
from dstack.server.follow import Follower
from dstack.server.inventory import Inventory, UnknownHostKeyError
from dstack.server.links import link
from dstack.server.lookup import job_named, jobs_named, run_named
from dstack.server.registering import Registering
from dstack.server.submit import Intake
from dstack.server.tags import delete_tag, set_tag
from dstack.server.views import job_view, run_view

Endpoint = Callable[[Request], Awaitable[Any]]

HEADERS = {"X-Dstack-Version": __version__, "X-Dstack-Api": str(API)}
BLOCK = 256 * 1024


@dataclass
class Api:
    """What the routes work on. `quit` ends the server; `url` is where it listens."""

    context: Context
    engine: Engine
    inventory: Inventory
    registering: Registering
    intake: Intake
    url: str
    started: float
    quit: Callable[[], None]

    @cached_property
    def retention(self) -> Retention:
        """What removes runs: one at a time."""
        return Retention(self.context)

    async def status(self, request: Request) -> ServerStatus:
        unfinished = {job.run for job in self.context.store.jobs.unfinished()}
        return ServerStatus(
            pid=os.getpid(),
            url=self.url,
            version=__version__,
            api=API,
            started_at=rfc3339(self.started),
            runs=len(unfinished),
            home=str(self.context.layout.home),
        )

    async def submit(self, request: Request) -> Any:
        return await self.intake.take(request.stream())

    async def runs(self, request: Request) -> Any:
        asked = request.query_params
        status = Status(asked["status"]) if "status" in asked else None
        limit = int(asked.get("limit", "20"))
        runs = self.context.store.runs.newest(
            limit if status is None else 10_000, workflow=asked.get("workflow"), user=asked.get("user")
        )
        places = self.engine.positions
        views = (run_view(run, self.context.store.jobs.of(run.name), places) for run in runs)
        return [view for view in views if status is None or view.status is status][:limit]

    async def run(self, request: Request) -> Any:
        run = run_named(self.context.store, request.path_params["ref"])
        return run_view(run, self.context.store.jobs.of(run.name), self.engine.positions)

    async def diff(self, request: Request) -> Response:
        snapshot = run_named(self.context.store, request.path_params["ref"]).snapshot
        mirror = self.context.mirror(snapshot.repo)
        patch = await asyncio.to_thread(mirror.diff, snapshot.commit, snapshot.tree)
        return Response(patch, media_type="application/octet-stream")

    async def recipe(self, request: Request) -> Any:
        run = run_named(self.context.store, request.path_params["ref"])
        if not run.workflows:
            raise NotFoundError(f"{run.name} was submitted to an older server, which did not keep its definitions")
        return Recipe(
            workflow=run.workflow,
            workflows=run.workflows,
            variables=run.inputs,
            snapshot=run.snapshot,
            environment=run.environment,
            gpus=run.gpus,
        )

    async def jobs(self, request: Request) -> Any:
        asked = request.query_params
        if "run" in asked:
            jobs = self.context.store.jobs.of(run_named(self.context.store, asked["run"]).name)
        else:
            jobs = self.context.store.jobs.newest(int(asked.get("limit", "20")))
        return [job_view(job, self.engine.positions.get(job.id)) for job in jobs]

    async def job(self, request: Request) -> Any:
        job = job_named(self.context.store, request.path_params["ref"])
        return job_view(job, self.engine.positions.get(job.id))

    async def follow(self, request: Request) -> Response:
        asked = request.query_params
        offsets = dict(part.split(":") for part in asked.get("from", "").split(",") if part)
        follower = Follower(
            self.context,
            request.path_params["ref"],
            {job: int(offset) for job, offset in offsets.items()},
            live=asked.get("follow") == "1",
            logs=asked.get("logs", "1") == "1",
        )
        return StreamingResponse(follower.frames(), media_type="application/octet-stream")

    async def stop(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=StopRequest)
        store = self.context.store
        found = store.jobs.unfinished() if wish.everything else []
        if wish.workflow is not None:
            found = [job for job in store.jobs.unfinished() if store.runs.require(job.run).workflow == wish.workflow]
        names = [job.run for job in found]
        for ref in wish.refs:
            run, jobs, _ = jobs_named(store, ref)
            found += jobs
            names.append(run.name)
        self.engine.stop(found, abort=wish.abort)
        return [run_view(store.runs.require(name), store.jobs.of(name)) for name in dict.fromkeys(names)]

    async def hold(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=HoldRequest)
        found: dict[str, list[Job]] = {}
        for ref in wish.refs:
            run, jobs, _ = jobs_named(self.context.store, ref)
            found.setdefault(run.name, []).extend(jobs)
        changed = {name: [job.id for job in self.engine.hold(jobs, wish.user)] for name, jobs in found.items()}
        told = {name: jobs for name, jobs in changed.items() if jobs}
        return HoldAnswer(changed=told, unchanged=[name for name in changed if name not in told])

    async def metrics(self, request: Request) -> Any:
        store = self.context.store
        _, jobs, _ = jobs_named(store, request.path_params["ref"])
        sources = [(job, store.jobs.require(job.source)) for job in jobs]
        return [
            JobMetrics(job=job.id, workflow=job.workflow, runner=source.runner, points=store.metrics.read(source.id))
            for job, source in sources
        ]

    async def secrets(self, request: Request) -> Any:
        return [SecretView(name=name, set_at=at) for name, at in self.context.store.secrets.names().items()]

    async def set_secret(self, request: Request) -> Any:
        secret = msgspec.json.decode(await request.body(), type=SetSecret)
        check_name(secret.name)
        if not secret.value or "\0" in secret.value:
            raise UsageError(f"the value of '{secret.name}' is empty, or holds a NUL character")
        now = rfc3339(time.time())
        self.context.store.secrets.set(secret.name, secret.value, now)
        return SecretView(name=secret.name, set_at=now)

    async def delete_secret(self, request: Request) -> Any:
        self.context.store.secrets.delete(request.path_params["name"])
        return {}

    async def artifacts(self, request: Request) -> Any:
        _, jobs, _ = jobs_named(self.context.store, request.path_params["ref"])
        views: list[ArtifactView] = []
        for job in jobs:
            source = self.context.store.jobs.require(job.source)
            manifest = await asyncio.to_thread(self.context.storage.manifest, source.run, source.workflow)
            for file in manifest.files if manifest else ():
                views.append(
                    ArtifactView(
                        job=job.id,
                        workflow=job.workflow,
                        path=file.path,
                        size=file.size,
                        mode=file.mode,
                        sha256=file.sha256,
                        link=file.link,
                    )
                )
        return views

    async def artifact(self, request: Request) -> Response:
        job = job_named(self.context.store, request.path_params["ref"])
        source = self.context.store.jobs.require(job.source)
        path = parse_qs(request.url.query, errors="surrogateescape")["path"][0]
        offset = int(request.query_params.get("offset", "0"))
        opened = self.context.storage.open(source.run, source.workflow, path, offset)
        return StreamingResponse(opened, media_type="application/octet-stream")

    async def artifact_url(self, request: Request) -> Any:
        job = job_named(self.context.store, request.path_params["ref"])
        return await link(self.context, job, request.query_params["path"])

    async def delete_runs(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=DeleteRequest)
        runs = [run_named(self.context.store, ref) for ref in dict.fromkeys(wish.refs)]
        return await self.retention.delete(runs)

    async def prune(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=PruneRequest)
        found = self.retention.prunable(wish.keep_last, wish.older_than)
        return [self.retention.told(run) for run in found] if wish.dry_run else await self.retention.remove(found)

    async def tags(self, request: Request) -> Any:
        return self.context.store.tags.all()

    async def tag(self, request: Request) -> Any:
        return set_tag(self.context.store, msgspec.json.decode(await request.body(), type=TagRequest))

    async def delete_tag(self, request: Request) -> Any:
        delete_tag(self.context.store, request.path_params["name"])
        return {}

    async def runners(self, request: Request) -> Any:
        return await self.inventory.list()

    async def add_runner(self, request: Request) -> Any:
        return await self.inventory.add(msgspec.json.decode(await request.body(), type=AddRunner))

    async def remove_runner(self, request: Request) -> Any:
        await self.inventory.remove(request.path_params["name"], force=request.query_params.get("force") == "1")
        return {}

    async def check_runner(self, request: Request) -> Any:
        return await self.inventory.check(request.path_params["name"])

    async def key(self, request: Request) -> Any:
        layout, settings = self.context.layout, self.context.store.settings
        return ServerKey(key=await asyncio.to_thread(own_key, layout.identity), server=settings.server_id)

    async def change_runner(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=AddRunner)
        return await self.inventory.change(request.path_params["name"], wish)

    async def drain_runner(self, request: Request) -> Any:
        wish = msgspec.json.decode(await request.body(), type=Drain)
        return self.inventory.drain(request.path_params["name"], wish.reason)

    async def resume_runner(self, request: Request) -> Any:
        return self.inventory.resume(request.path_params["name"])

    async def config(self, request: Request) -> Any:
        if request.method == "POST":
            wish = msgspec.json.decode(await request.body(), type=ServerConfig)
            if wish.storage is not None:
                await self.context.use_storage(wish.storage, wish.endpoint_url)
            if wish.max_gpus_per_user is not None:
                limit = str(wish.max_gpus_per_user) if wish.max_gpus_per_user >= 0 else ""
                self.context.store.settings.set("max-gpus-per-user", limit)
                self.engine.poke()
        return ServerConfig(
            storage=self.context.storage_url,
            endpoint_url=self.context.endpoint_url,
            max_gpus_per_user=self.engine.max_gpus_per_user,
        )

    async def shutdown(self, request: Request) -> Any:
        self.quit()
        return {}

    def routes(self) -> list[Route]:
        """Every route of the API."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/status", self.status),
            ("POST", "/runs", self.submit),
            ("GET", "/runs", self.runs),
            ("GET", "/runs/{ref}", self.run),
            ("GET", "/runs/{ref}/diff", self.diff),
            ("GET", "/runs/{ref}/recipe", self.recipe),
            ("GET", "/jobs", self.jobs),
            ("GET", "/jobs/{ref}", self.job),
            ("GET", "/follow/{ref}", self.follow),
            ("GET", "/metrics/{ref}", self.metrics),
            ("POST", "/stop", self.stop),
            ("POST", "/hold", self.hold),
            ("GET", "/secrets", self.secrets),
            ("POST", "/secrets", self.set_secret),
            ("DELETE", "/secrets/{name}", self.delete_secret),
            ("GET", "/artifacts/{ref}", self.artifacts),
            ("GET", "/artifacts/{ref}/file", self.artifact),
            ("GET", "/artifacts/{ref}/url", self.artifact_url),
            ("POST", "/runs/delete", self.delete_runs),
            ("POST", "/prune", self.prune),
            ("GET", "/tags", self.tags),
            ("POST", "/tags", self.tag),
            ("DELETE", "/tags/{name}", self.delete_tag),
            ("GET", "/runners", self.runners),
            ("POST", "/runners", self.add_runner),
            ("DELETE", "/runners/{name}", self.remove_runner),
            ("POST", "/runners/{name}/check", self.check_runner),
            ("PUT", "/runners/{name}", self.change_runner),
            ("POST", "/runners/{name}/drain", self.drain_runner),
            ("POST", "/runners/{name}/resume", self.resume_runner),
            ("GET", "/key", self.key),
            ("GET", "/config", self.config),
            ("POST", "/config", self.config),
            ("POST", "/shutdown", self.shutdown),
        ]
        table += self.registering.table()
        routes = [Route(f"/v1{path}", answering(endpoint), methods=[method]) for method, path, endpoint in table]
        return [*routes, Route("/dstack-runner", answering(self.registering.program))]


def answering(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint whose answer becomes JSON, and whose errors become a Problem."""

    async def answer(request: Request) -> Response:
        try:
            answered = await endpoint(request)
        except DstackError as error:
            return told(error)
        except (ValueError, KeyError, msgspec.DecodeError) as error:
            return told(UsageError(f"the request can't be read: {error}"))
        if isinstance(answered, Response):
            answered.headers.update(HEADERS)
            return answered
        created = request.method == "POST" and request.url.path.endswith("/runs")
        return Response(wire.encode(answered), 201 if created else 200, HEADERS, "application/json")

    return answer


def told(error: DstackError) -> Response:
    """An error as a client gets it."""
    kinds: list[tuple[type[DstackError], str, int]] = [
        (UnknownHostKeyError, "host-key", 409),
        (MissingBaseError, "missing-base", 409),
        (NotFoundError, "NotFoundError", 404),
        (UnauthorizedError, "UnauthorizedError", 401),
        (ConflictError, "ConflictError", 409),
        (TryAgainError, "TryAgainError", 409),
        (UsageError, type(error).__name__, 400),
    ]
    kind, status = next(((k, s) for cls, k, s in kinds if isinstance(error, cls)), (type(error).__name__, 500))
    problem = Problem(
        kind=kind,
        message=error.message,
        hint=error.hint,
        exit_code=error.exit_code,
        fingerprint=getattr(error, "fingerprint", None),
        known=getattr(error, "known", ()),
    )
    return Response(wire.encode(problem), status, HEADERS, "application/json")


def application(api: Api) -> Starlette:
    """The ASGI application."""

    async def crashed(request: Request, error: Exception) -> Response:
        return told(DstackError(f"an error in the server: {error!r}", hint="dstack server logs"))

    async def unknown(request: Request, error: Exception) -> Response:
        return told(NotFoundError(f"the server has no {request.url.path}"))

    return Starlette(routes=api.routes(), exception_handlers={Exception: crashed, 404: unknown, 405: unknown})
