"""How a request becomes the call of an endpoint, and how its result or error becomes a response."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from typing import Any, get_type_hints
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from dstack import __version__, errors
from dstack.errors import DstackError, ErrorCode, UsageError
from dstack.model.api import wire
from dstack.model.api.server import API, Problem
from dstack.server.border.values import reading, sound
from dstack.server.roles import caller
from dstack.store.tables.events import SERVER, acting

Endpoint = Callable[..., Any]
KINDS: dict[type[DstackError], str] = {errors.UnknownHostKeyError: "host-key", errors.MissingBaseError: "missing-base"}
"""The `kind` of a Problem where it is not the name of the error's class."""
STATUSES: list[tuple[int, tuple[type[DstackError], ...]]] = [
    (500, (errors.StateDamagedError,)),
    (503, (errors.ServerTroubleError,)),
    (404, (errors.NotFoundError,)),
    (401, (errors.UnauthorizedError,)),
    (403, (errors.ForbiddenError,)),
    (409, (errors.ConflictError, errors.TryAgainError, errors.UnknownHostKeyError, errors.MissingBaseError)),
    (400, (UsageError,)),
]
STATUS_OF: dict[str, int] = {
    ErrorCode.TOO_LARGE: 413,
    ErrorCode.TOO_SLOW: 408,
    ErrorCode.TOO_MANY: 429,
    ErrorCode.FOREIGN_HOST: 421,
    ErrorCode.FOREIGN_ORIGIN: 403,
}
"""The statuses of errors that have one of their own, by code."""
HEADERS = {"X-Dstack-Version": __version__, "X-Dstack-Api": str(API)}


def answering(
    endpoint: Endpoint, synced: Callable[[], Awaitable[None]] | None = None
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap an endpoint, which may be a coroutine function: its result becomes JSON, its errors become a Problem. What
    it changed is `synced` to disk before it is acknowledged.

    Its arguments come from the request, by their annotations: a struct from the body (of a GET: from the query), any
    other from the part of the path or the parameter of the query that has its name.
    """
    kinds = {name: kind for name, kind in get_type_hints(endpoint, include_extras=True).items() if name != "return"}
    parameters = inspect.signature(endpoint).parameters
    needed = {name for name in kinds if parameters[name].default is inspect.Parameter.empty}

    async def answer(request: Request) -> Response:
        try:
            given = await arguments(request, kinds, needed)
            with acting(actor(request)):
                answered = endpoint(**given)
                if inspect.isawaitable(answered):
                    answered = await answered
                if synced is not None:
                    await synced()
        except DstackError as error:
            return problem_response(error)
        except ClientDisconnect:
            return problem_response(UsageError("the request was cut off", code=ErrorCode.TOO_SLOW))
        except (OSError, MemoryError) as error:
            if (known := errors.server_trouble(error)) is None:
                raise
            return problem_response(known)
        if isinstance(answered, Response):
            answered.headers.update(HEADERS)
            return answered
        created = request.method == "POST" and request.url.path.endswith("/runs")
        body = wire.encode({} if answered is None else answered)
        return Response(body, 201 if created else 200, HEADERS, "application/json")

    return answer


async def arguments(request: Request, kinds: Mapping[str, Any], needed: Container[str]) -> dict[str, Any]:
    """Return the arguments of an endpoint, given their types and the names of those without a default. Raises
    UsageError for a request that can't be read; any later error is the server's own."""
    with reading():
        query = parse_qsl(
            request.scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="surrogateescape"
        )
        given = {**dict(query), **request.path_params}
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        struct = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        if kind is Request:
            found[name] = request
        elif struct and request.method not in ("GET", "HEAD"):
            body = await request.body()
            with reading():
                found[name] = sound(wire.decode(body, kind))
        elif struct or name in given or name in needed:
            with reading():
                found[name] = sound(msgspec.convert(given if struct else given[name], kind, strict=False), name)
    return found


async def array(pages: AsyncIterable[Sequence[Any]]) -> AsyncIterator[bytes]:
    """Yield what the pages have as one JSON array."""
    opening = b"["
    async for page in pages:
        if page:
            yield opening + wire.encode(page)[1:-1]
            opening = b","
    yield b"]" if opening == b"," else b"[]"


def actor(request: Request) -> str:
    """Return who sends the request. A personal token proves its name; else it is the name that the client gives.
    Without one, the server itself acts."""
    return caller().name or unquote(request.headers.get("x-dstack-user", "")) or SERVER


def problem_response(error: DstackError) -> Response:
    """Return an error as an HTTP response."""
    problem, status = problem_of(error)
    again = {"Retry-After": str(error.again)} if isinstance(error, errors.ServerTroubleError) else {}
    return Response(wire.encode(problem), status, {**HEADERS, **again}, "application/json")


def problem_of(error: DstackError) -> tuple[Problem, int]:
    """Return an error as it travels, with its HTTP status."""
    by_class = next((status for status, kinds in STATUSES if isinstance(error, kinds)), 500)
    status = STATUS_OF.get(error.code, by_class)
    problem = Problem(
        kind=KINDS.get(type(error), type(error).__name__),
        message=error.message,
        hint=error.hint,
        code=error.code,
        exit_code=error.exit_code,
        fingerprint=getattr(error, "fingerprint", None),
        known=getattr(error, "known", ()),
    )
    return problem, status
