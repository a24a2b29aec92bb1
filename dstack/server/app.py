"""The HTTP API: all its routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dstack.engine.engine import Engine
from dstack.engine.notify.notifier import Notifier
from dstack.engine.retention.retention import Retention
from dstack.engine.sweeps.sweeps import SweepDrives
from dstack.engine.triggers.loop import TriggerLoop
from dstack.errors import DstackError, ErrorCode, NotFoundError
from dstack.server.access import API as API_PATH
from dstack.server.endpoints import Endpoint, answering, problem_response
from dstack.server.follow_events import EventRoutes
from dstack.server.registrations import RegistrationService, program
from dstack.server.roles import Answer, guarded
from dstack.server.routes.artifacts import ArtifactRoutes
from dstack.server.routes.jobs import JobRoutes
from dstack.server.routes.metrics import MetricRoutes
from dstack.server.routes.notify import NotifyRoutes
from dstack.server.routes.reports import ReportRoutes
from dstack.server.routes.runs import RunRoutes
from dstack.server.routes.settings import SettingsRoutes
from dstack.server.routes.sweeps import SweepRoutes
from dstack.server.routes.triggers import TriggerRoutes
from dstack.server.routes.visits import VisitRoutes


def table(
    engine: Engine,
    retention: Retention,
    machines: RegistrationService,
    drives: SweepDrives,
    notifier: Notifier,
    loop: TriggerLoop,
    url: str,
    shutdown: Callable[[], None],
    link: Endpoint,
) -> list[tuple[str, str, Endpoint]]:
    """Return the method, path and endpoint of each route below /v1. `url` is where the server listens; `shutdown`
    stops it; `link` makes a link to the web page."""
    runs, jobs, settings = RunRoutes(engine, retention), JobRoutes(engine), SettingsRoutes(engine, url)
    artifacts, events = ArtifactRoutes(engine.context), EventRoutes(engine.context)
    visits, reports, runners = VisitRoutes(engine), ReportRoutes(engine), machines.runner_service
    sweeps, notify, triggers = SweepRoutes(engine, drives), NotifyRoutes(notifier), TriggerRoutes(loop)
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
        ("GET", "/why/{ref}", reports.why),
        ("GET", "/usage", reports.usage),
        ("GET", "/series/{ref}", MetricRoutes(engine).series),
        ("GET", "/compare", MetricRoutes(engine).compare),
        ("POST", "/stop", jobs.stop),
        ("POST", "/hold", jobs.hold),
        ("POST", "/exec/{ref}", visits.enter),
        ("POST", "/forward/{ref}/{port}", visits.forward),
        ("GET", "/artifacts/{ref}", artifacts.artifacts),
        ("GET", "/artifacts/{ref}/file", artifacts.file),
        ("GET", "/artifacts/{ref}/folders", artifacts.folders),
        ("GET", "/artifacts/{ref}/url", artifacts.url),
        ("POST", "/artifacts/{ref}/urls", artifacts.urls),
        ("GET", "/tags", engine.store.tags.all),
        ("POST", "/tags", artifacts.tag),
        ("DELETE", "/tags/{name}", artifacts.delete_tag),
        ("POST", "/sweeps", sweeps.submit),
        ("GET", "/sweeps", sweeps.sweeps),
        ("GET", "/sweeps/{ref}", sweeps.sweep),
        ("GET", "/sweeps/{ref}/follow", sweeps.follow),
        ("POST", "/sweeps/{ref}/stop", sweeps.stop),
        ("POST", "/sweeps/{ref}/resume", sweeps.resume),
        ("POST", "/sweeps/{ref}/retry-failed", sweeps.retry_failed),
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
        ("GET", "/notify", notify.all),
        ("POST", "/notify", notify.add),
        ("POST", "/notify/test", notify.test),
        ("POST", "/notify/clear", notify.clear),
        ("DELETE", "/notify/{number}", notify.remove),
        ("POST", "/shutdown", shutdown),
        ("GET", "/events", events.events),
        ("POST", "/ui", link),
    ]


def application(
    routes: list[tuple[str, str, Endpoint]],
    synced: Callable[[], Awaitable[None]],
    pages: Sequence[Route] = (),
    missing: Answer | None = None,
) -> Starlette:
    """Return the ASGI application with these routes below /v1, and these pages. What they change is `synced` before
    they answer; `missing` answers requests for other pages."""

    async def crashed(request: Request, error: Exception) -> Response:
        message, hint = f"internal error in the server: {error!r}", "dstack server logs"
        return problem_response(DstackError(message, hint=hint, code=ErrorCode.INTERNAL))

    async def unknown(request: Request, error: Exception) -> Response:
        if missing is not None and not API_PATH.fullmatch(request.url.path):
            return await missing(request)
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
    every += pages
    every += [
        Route(path, answering(endpoint, synced), methods=[method])
        for method, path, endpoint in routes
        if path.startswith("/hooks/")
    ]
    return Starlette(routes=every, exception_handlers={Exception: crashed, 404: unknown, 405: unknown})
