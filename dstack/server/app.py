"""The HTTP API: all its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dstack.engine.engine import Engine
from dstack.engine.retention.retention import Retention
from dstack.engine.triggers.loop import TriggerLoop
from dstack.errors import DstackError, ErrorCode, NotFoundError
from dstack.server.endpoints import Endpoint, answering, problem_response
from dstack.server.follow_events import EventRoutes
from dstack.server.registrations import RegistrationService, program
from dstack.server.roles import guarded
from dstack.server.routes.artifacts import ArtifactRoutes
from dstack.server.routes.jobs import JobRoutes
from dstack.server.routes.runs import RunRoutes
from dstack.server.routes.settings import SettingsRoutes
from dstack.server.routes.triggers import TriggerRoutes


def table(
    engine: Engine,
    retention: Retention,
    machines: RegistrationService,
    url: str,
    shutdown: Callable[[], None],
    loop: TriggerLoop | None = None,
) -> list[tuple[str, str, Endpoint]]:
    """Return the method, path and endpoint of each route below /v1. `url` is where the server listens; `shutdown`
    stops it."""
    runs, jobs, settings = RunRoutes(engine, retention), JobRoutes(engine), SettingsRoutes(engine, url)
    artifacts, events = ArtifactRoutes(engine.context), EventRoutes(engine.context)
    runners, triggers = machines.runner_service, TriggerRoutes(loop or TriggerLoop(engine.context, engine))
    return [
        ("POST", "/runs", runs.submit),
        ("GET", "/runs", runs.runs),
        ("GET", "/runs/{ref}", runs.run),
        ("GET", "/runs/{ref}/diff", runs.diff),
        ("GET", "/runs/{ref}/recipe", runs.recipe),
        ("POST", "/runs/delete", runs.delete),
        ("POST", "/prune", runs.prune),
        ("POST", "/prune/caches", runs.prune_caches),
        ("POST", "/prune/rest", runs.prune_rest),
        ("GET", "/jobs", jobs.jobs),
        ("GET", "/jobs/{ref}", jobs.job),
        ("GET", "/follow/{ref}", jobs.follow),
        ("GET", "/metrics/{ref}", jobs.metrics),
        ("POST", "/stop", jobs.stop),
        ("POST", "/hold", jobs.hold),
        ("GET", "/artifacts/{ref}", artifacts.artifacts),
        ("GET", "/artifacts/{ref}/file", artifacts.file),
        ("GET", "/artifacts/{ref}/folders", artifacts.folders),
        ("GET", "/artifacts/{ref}/url", artifacts.url),
        ("POST", "/artifacts/{ref}/urls", artifacts.urls),
        ("GET", "/tags", engine.store.tags.all),
        ("POST", "/tags", artifacts.tag),
        ("DELETE", "/tags/{name}", artifacts.delete_tag),
        ("POST", "/triggers", triggers.apply),
        ("GET", "/triggers", triggers.all),
        ("GET", "/triggers/{name}", triggers.one),
        ("DELETE", "/triggers/{name}", triggers.remove),
        ("POST", "/triggers/{name}/run", triggers.run),
        ("POST", "/triggers/{name}/pause", triggers.pause),
        ("POST", "/triggers/{name}/resume", triggers.resume),
        ("POST", "/hooks/{name}", triggers.hook),
        ("GET", "/runners", runners.list),
        ("POST", "/runners", runners.add),
        ("DELETE", "/runners/{name}", runners.removal.remove),
        ("POST", "/runners/{name}/check", runners.check),
        ("POST", "/runners/{name}/clean", runners.clean),
        ("PUT", "/runners/{name}", runners.change),
        ("POST", "/runners/{name}/drain", runners.drain),
        ("POST", "/runners/{name}/resume", runners.resume),
        ("POST", "/registrations", machines.register),
        ("GET", "/registrations", machines.all),
        ("POST", "/registrations/{name}/heartbeat", machines.heartbeat),
        ("POST", "/registrations/{name}/approve", machines.approve),
        ("POST", "/registration-tokens", machines.token),
        ("GET", "/secrets", settings.secrets),
        ("POST", "/secrets", settings.set_secret),
        ("DELETE", "/secrets/{name}", settings.delete_secret),
        ("GET", "/tokens", engine.store.tokens.all),
        ("POST", "/tokens", settings.create_token),
        ("DELETE", "/tokens/{name}", engine.store.tokens.revoke),
        ("GET", "/status", settings.status),
        ("POST", "/identity", settings.identity),
        ("GET", "/key", settings.key),
        ("GET", "/config", settings.config),
        ("POST", "/config", settings.configure),
        ("POST", "/shutdown", shutdown),
        ("GET", "/events", events.events),
    ]


def application(routes: list[tuple[str, str, Endpoint]], synced: Callable[[], Awaitable[None]]) -> Starlette:
    """Return the ASGI application with these routes below /v1. What they change is `synced` before they answer."""

    async def crashed(request: Request, error: Exception) -> Response:
        message, hint = f"internal error in the server: {error!r}", "dstack server logs"
        return problem_response(DstackError(message, hint=hint, code=ErrorCode.INTERNAL))

    async def unknown(request: Request, error: Exception) -> Response:
        return problem_response(NotFoundError(f"the server has no route {request.url.path}"))

    every = [
        Route(
            f"/v1{path}",
            guarded(f"{method} {path}", answering(endpoint, None if method == "GET" else synced), problem_response),
            methods=[method],
        )
        for method, path, endpoint in routes
    ]
    every.append(Route("/dstack-runner", answering(program)))
    every += [
        Route(path, answering(endpoint, synced), methods=[method])
        for method, path, endpoint in routes
        if path.startswith("/hooks/")
    ]
    return Starlette(routes=every, exception_handlers={Exception: crashed, 404: unknown, 405: unknown})
