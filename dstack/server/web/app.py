"""All pages and forms of the web page, and where they are."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dstack.engine.engine import Engine
from dstack.engine.retention.retention import Retention
from dstack.errors import NotFoundError
from dstack.server.routes.artifacts import ArtifactRoutes
from dstack.server.routes.jobs import JobRoutes
from dstack.server.routes.runs import RunRoutes
from dstack.server.runners.runner_service import RunnerService
from dstack.server.web import html
from dstack.server.web.actions import Actions
from dstack.server.web.live import Live
from dstack.server.web.sessions import WebSessions
from dstack.server.web.sign_in import SignInPages
from dstack.server.web.site import Act, Page, Site, asked
from dstack.server.web.views.artifacts import ArtifactPages
from dstack.server.web.views.compare import ComparePage
from dstack.server.web.views.events import EventsPage
from dstack.server.web.views.hours import UsagePage
from dstack.server.web.views.metrics import MetricPages
from dstack.server.web.views.now import NowPage, RunnerBoard
from dstack.server.web.views.run import RunPages
from dstack.server.web.views.runners import RunnerPages
from dstack.server.web.views.runs import RunsPage
from dstack.server.web.views.sweeps import SweepPages

FOR_A_YEAR = "public, max-age=31536000, immutable"


@dataclass
class WebPages:
    """The routes of the web page, and what of it the rest of the server needs."""

    engine: Engine
    retention: Retention
    runners: RunnerService
    synced: Callable[[], Awaitable[None]]

    def __post_init__(self) -> None:
        self.sessions = WebSessions(self.engine.store)
        self.site = Site(self.sessions, Live(self.engine.context), self.synced)

    def pages(self) -> dict[str, Page]:
        """Return each page by its path."""
        engine = self.engine
        machines = RunnerBoard(engine, self.runners)
        runs, run = RunsPage(engine), RunPages(engine)
        runners = RunnerPages(engine, machines)
        return {
            "/": Page("now", NowPage(machines).now),
            "/runs": Page("runs", runs.runs),
            "/runs/{name}": Page("run", run.overview, about="name"),
            "/runs/{name}/log": Page("log", run.log, about="name"),
            "/runs/{name}/artifacts": Page("artifacts", ArtifactPages(engine, run).folder, about="name"),
            "/runs/{name}/code": Page("code", run.code, about="name"),
            "/runs/{name}/events": Page("run_events", run.events, about="name"),
            "/compare": Page("compare", ComparePage(engine, runs).compare),
            "/confirm": Page("confirm", self.actions().confirm),
            "/runners": Page("runners", runners.runners),
            "/runners/{name}": Page("runner", runners.runner),
            "/sweeps": Page("sweeps", SweepPages(engine).sweeps),
            "/sweeps/{name}": Page("sweep", SweepPages(engine).sweep),
            "/usage": Page("usage", UsagePage(engine).hours),
            "/events": Page("events", EventsPage(engine).events),
        }

    def actions(self) -> Actions:
        engine = self.engine
        return Actions(
            RunRoutes(engine, self.retention), JobRoutes(engine), ArtifactRoutes(engine.context), self.runners
        )

    def routes(self) -> list[Route]:
        site, acts = self.site, self.actions()
        sign_in = SignInPages(site, self.sessions)
        run, metrics = RunPages(self.engine), MetricPages(self.engine)
        forms: dict[str, Act] = {
            "/runs/act": acts.act,
            "/tags": acts.tag,
            "/tags/delete": acts.untag,
            "/runners/check": acts.check,
            "/runners/drain": acts.drain,
            "/runners/resume": acts.resume,
        }
        plain = {
            "GET /static/{hash}/{name}": static,
            "GET /login": sign_in.show,
            "POST /login": sign_in.enter,
            "POST /logout": sign_in.leave,
            "GET /runs/{name}/log/raw": asked(run.raw),
            "GET /runs/{name}/usage": asked(run.usage),
            "GET /runs/{name}/curves": asked(metrics.curves),
            "GET /compare/curves": asked(metrics.compared),
            "GET /runs/{name}/artifacts/file": asked(ArtifactPages(self.engine, run).file),
        }
        answers = {f"POST {path}": site.form(f"POST {path}", act) for path, act in forms.items()}
        answers |= {f"GET {path}": site.page(f"GET {path}", page) for path, page in self.pages().items()}
        answers |= {route: site.guarded(route, answer) for route, answer in plain.items()}
        return [Route(route.split(" ")[1], answer, methods=[route.split(" ")[0]]) for route, answer in answers.items()]


async def static(request: Request) -> Response:
    """Send a file that belongs to the pages. Its URL has its hash, so a browser never asks for it again."""
    name, hash_ = request.path_params["name"], request.path_params["hash"]
    asset = html.assets().get(name)
    if asset is None or asset.hash != hash_:
        raise NotFoundError(f"there is no file {name}", hint="reload the page")
    return Response(asset.body, headers={"Cache-Control": FOR_A_YEAR}, media_type=asset.media_type)
