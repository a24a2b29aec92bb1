"""How a request becomes a page: who may see it, what it shows, and what its reader gets if that fails."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_type_hints

from msgspec.structs import asdict
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from dstack import __version__, errors
from dstack.errors import DstackError, ErrorCode, NotFoundError, UnauthorizedError, UsageError
from dstack.model.api.tokens import Role
from dstack.server.endpoints import arguments, problem_of
from dstack.server.roles import PAGES, Caller, admin, admins_only, caller, calling
from dstack.server.web import html
from dstack.server.web.forms import form_of
from dstack.server.web.live import Live
from dstack.server.web.sessions import WebSessions
from dstack.store.tables.events import SERVER, acting

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Dstack-Version": __version__,
}
"""A page runs only our own scripts, asks only this server, and is in nobody's frame."""
STREAM = "text/event-stream"
Values = dict[str, Any]
Load = Callable[..., Values | Awaitable[Values]]
Answer = Callable[[Request], Awaitable[Response]]
Act = Callable[[Any], str | Awaitable[str]]


@dataclass(frozen=True)
class Page:
    """One kind of page. `load` returns what the template shows, given the parts of the path and the query by name.
    `about` is the parameter that names the run whose changes it shows live; without one, it shows those of all."""

    template: str
    load: Load
    about: str | None = None


@dataclass
class Site:
    """Answers requests for pages and forms. `synced` returns once what was changed is on disk."""

    sessions: WebSessions
    live: Live
    synced: Callable[[], Awaitable[None]]
    used: float = field(default_factory=time.monotonic)

    @property
    def idle(self) -> float:
        """Seconds since a page was asked for or kept up to date."""
        return time.monotonic() - max(self.used, self.live.used)

    def page(self, route: str, page: Page) -> Answer:
        """Return what answers the requests for a page."""
        read = reader(page.load)

        async def answer(request: Request) -> Response:
            given = await read(request)
            load = partial(self.loaded, page.load, given, self.values(request), caller())
            if STREAM in request.headers.get("accept", ""):
                run = given[page.about] if page.about else None
                alive, key = partial(self.alive, request), self.key(request)
                frames = self.live.frames(page.template, load, key, run, seen_by(request), base_of(request), alive)
                return StreamingResponse(frames, media_type=STREAM)
            values = await load()
            parts = html.live_parts(page.template, values)
            return HTMLResponse(html.page(page.template, values | {"version": self.live.version(parts, values)}))

        return self.guarded(route, answer)

    def form(self, route: str, act: Act) -> Answer:
        """Return what answers a form: `act` gets its fields as one struct, and returns the path of the next page."""
        (kind,) = (kind for name, kind in get_type_hints(act).items() if name != "return")

        async def answer(request: Request) -> Response:
            fields, key = await form_of(request, kind)
            self.sessions.check_form(request.scope, key)
            path = act(fields)
            if inspect.isawaitable(path):
                path = await path
            await self.synced()
            return RedirectResponse(f"{base_of(request)}{path}", 303)

        return self.guarded(route, answer)

    def guarded(self, route: str, answer: Answer) -> Answer:
        """Let only those have an answer who may, and turn every error into a page."""
        need = PAGES.get(route, admin(f"send {route}"))

        async def guard(request: Request) -> Response:
            sender = request.scope["dstack.caller"]
            self.used = time.monotonic()
            try:
                if need.role is not None and sender.role is None:
                    return self.unknown(request)
                if need.role is Role.ADMIN and sender.role is not Role.ADMIN:
                    raise admins_only(sender, need.act)
                with calling(sender), acting(self.actor(request)):
                    response = await answer(request)
            except DstackError as error:
                response = self.failed(request, error)
            except ClientDisconnect:
                response = self.failed(request, UsageError("the request was cut off", code=ErrorCode.TOO_SLOW))
            except (OSError, MemoryError) as error:
                if (known := errors.server_trouble(error)) is None:
                    raise
                response = self.failed(request, known)
            return secured(response)

        return guard

    async def missing(self, request: Request) -> Response:
        """Answer a request for a page that does not exist."""
        if request.scope["dstack.caller"].role is None:
            return self.unknown(request)
        return secured(self.failed(request, NotFoundError(f"there is no page {request.url.path}")))

    def unknown(self, request: Request) -> Response:
        """Lead a browser without a session to where it gets one; refuse everything else.

        A browser does not send the cookie with a page that is opened by a link on another site, such as a chat. From a
        page of our own, it does: so the first answer to such a request is a page that opens the same URL again.
        """
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        wants_page = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if wants_page and request.headers.get("sec-fetch-site") == "cross-site":
            return secured(HTMLResponse(html.page("again", {"here": f"{base_of(request)}{here}"})))
        if wants_page:
            return secured(
                RedirectResponse(f"{base_of(request)}/login{html.query(next=here if here != '/' else None)}", 303)
            )
        return secured(self.failed(request, UnauthorizedError("sign in first", hint="open /login, or type: dstack ui")))

    def failed(self, request: Request, error: DstackError) -> Response:
        """Return an error as a page, or as JSON to those who don't want pages."""
        problem, status = problem_of(error)
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(html.page("error", {**self.values(request), "error": error, "status": status}), status)
        return Response(html.as_json(asdict(problem)), status, media_type="application/json")

    def values(self, request: Request) -> Values:
        """Return what every page needs."""
        sender = request.scope["dstack.caller"]
        session = request.scope.get("dstack.session")
        return {
            "base": base_of(request),
            "path": request.url.path,
            "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
            "user": session.user if session else sender.name,
            "signed_in": session is not None,
            "known": sender.role is not None,
            "admin": sender.role is Role.ADMIN,
            "form_key": self.sessions.form_key(request.scope),
            "version": "",
            "host": request.headers.get("host", ""),
        }

    async def loaded(self, load: Load, given: Mapping[str, Any], base: Values, sender: Caller) -> Values:
        """Return the values of a page for this reader, who may get it long after the request began."""
        with calling(sender):
            values = load(**given)
            return {**base, **(await values if inspect.isawaitable(values) else values)}

    def alive(self, request: Request) -> bool:
        """Whether the request's session has not ended since."""
        return request.scope.get("dstack.session") is None or self.sessions.find(request.scope) is not None

    def key(self, request: Request) -> str:
        """Return what decides how the live parts of a page read: they hold nothing of a session but who it is."""
        sender = caller()
        return f"{base_of(request)} {sender.role} {sender.name} {request.url.path}?{request.url.query}"

    def actor(self, request: Request) -> str:
        """Return whom events name."""
        session = request.scope.get("dstack.session")
        return session.user if session else caller().name or SERVER


def seen_by(request: Request) -> str:
    """Return the id of the last event that a reader has seen: a browser sends it after a broken stream."""
    return request.headers.get("last-event-id") or request.query_params.get("seen", "")


def base_of(request: Request) -> str:
    """Return the path before all pages."""
    base: str = request.scope.get("dstack.base_path", "")
    return base


def reader(endpoint: Callable[..., Any]) -> Callable[[Request], Awaitable[dict[str, Any]]]:
    """Return what reads an endpoint's arguments from a request: parts of its path and fields of its query."""
    hints = {name: kind for name, kind in get_type_hints(endpoint, include_extras=True).items() if name != "return"}
    parameters = inspect.signature(endpoint).parameters
    needed = {name for name in hints if parameters[name].default is inspect.Parameter.empty}

    async def read(request: Request) -> dict[str, Any]:
        without_blanks(request)
        return await arguments(request, hints, needed)

    return read


def asked(endpoint: Callable[..., Response | Awaitable[Response]]) -> Answer:
    """Return what answers a request with what the endpoint returns for its parameters."""
    read = reader(endpoint)

    async def answer(request: Request) -> Response:
        response = endpoint(**await read(request))
        return await response if inspect.isawaitable(response) else response

    return answer


def without_blanks(request: Request) -> None:
    """Drop the fields of a query that are empty: a form sends all of its fields."""
    pairs = request.scope["query_string"].split(b"&")
    request.scope["query_string"] = b"&".join(pair for pair in pairs if not pair.endswith(b"="))


def secured(response: Response) -> Response:
    """Add the headers that keep a page apart from the rest of the web, where it has none of its own."""
    for name, value in SECURITY.items():
        response.headers.setdefault(name, value)
    return response
