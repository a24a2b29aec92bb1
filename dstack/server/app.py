"""The HTTP API: all routes, and how errors become responses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import unquote

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dstack import __version__
from dstack.errors import (
    ConflictError,
    DstackError,
    ErrorCode,
    MissingBaseError,
    NotFoundError,
    TryAgainError,
    UnauthorizedError,
    UnknownHostKeyError,
    UsageError,
)
from dstack.model.api import wire
from dstack.model.api.server import API, Problem
from dstack.server.parts import Endpoint, Parts
from dstack.server.routes.artifacts import ArtifactRoutes
from dstack.server.routes.events import EventRoutes
from dstack.server.routes.jobs import JobRoutes
from dstack.server.routes.registrations import RegistrationRoutes
from dstack.server.routes.runners import RunnerRoutes
from dstack.server.routes.runs import RunRoutes
from dstack.server.routes.secrets import SecretRoutes
from dstack.server.routes.settings import SettingsRoutes
from dstack.store.tables.events import SERVER, acting

HEADERS = {"X-Dstack-Version": __version__, "X-Dstack-Api": str(API)}


def routes(parts: Parts) -> list[Route]:
    """Return every route of the API."""
    nouns = (RunRoutes, JobRoutes, ArtifactRoutes, RunnerRoutes, SecretRoutes, SettingsRoutes, EventRoutes)
    registrations = RegistrationRoutes(parts)
    tables = [*(noun(parts).table() for noun in nouns), registrations.table()]
    every = [
        Route(f"/v1{path}", answering(endpoint), methods=[method])
        for table in tables
        for method, path, endpoint in table
    ]
    return [*every, Route("/dstack-runner", answering(registrations.program))]


def answering(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint: its result becomes JSON, its errors become a Problem."""

    async def answer(request: Request) -> Response:
        try:
            with acting(actor(request)):
                answered = await endpoint(request)
        except DstackError as error:
            return problem_response(error)
        except (ValueError, KeyError, msgspec.DecodeError) as error:
            return problem_response(UsageError(f"the request is not valid: {error}"))
        if isinstance(answered, Response):
            answered.headers.update(HEADERS)
            return answered
        created = request.method == "POST" and request.url.path.endswith("/runs")
        return Response(wire.encode(answered), 201 if created else 200, HEADERS, "application/json")

    return answer


def actor(request: Request) -> str:
    """Return who sends the request. It is the name that the client gives; without one, the server itself acts."""
    return unquote(request.headers.get("x-dstack-user", "")) or SERVER


def problem_response(error: DstackError) -> Response:
    """Return an error as an HTTP response."""
    problem, status = problem_of(error)
    return Response(wire.encode(problem), status, HEADERS, "application/json")


def problem_of(error: DstackError) -> tuple[Problem, int]:
    """Return an error as it travels, with its HTTP status."""
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
        code=error.code,
        exit_code=error.exit_code,
        fingerprint=getattr(error, "fingerprint", None),
        known=getattr(error, "known", ()),
    )
    return problem, status


def application(parts: Parts) -> Starlette:
    """Return the ASGI application."""

    async def crashed(request: Request, error: Exception) -> Response:
        message, hint = f"internal error in the server: {error!r}", "dstack server logs"
        return problem_response(DstackError(message, hint=hint, code=ErrorCode.INTERNAL))

    async def unknown(request: Request, error: Exception) -> Response:
        return problem_response(NotFoundError(f"the server has no route {request.url.path}"))

    return Starlette(routes=routes(parts), exception_handlers={Exception: crashed, 404: unknown, 405: unknown})
