"""The routes of `dstack-runner`, and the program itself. Over TCP they need no server token: each checks its own token
or secret."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from dstack.errors import UnauthorizedError, UsageError
from dstack.model.runner.registration import Heartbeat, Registration
from dstack.server.parts import Parts, Table

PROGRAM = Path(__file__).parents[2] / "runner" / "__init__.py"
HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")


@dataclass
class RegistrationRoutes:
    """Endpoints."""

    parts: Parts

    async def program(self, request: Request) -> Response:
        """Return the program, with this server's URL filled in."""
        host = request.headers.get("host", "")
        if not HOST.fullmatch(host):
            raise UsageError("the request's Host header is missing or not valid")
        scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
        url = f"{'https' if scheme == 'https' else 'http'}://{host}"
        text = PROGRAM.read_text().replace('SERVER = ""', f'SERVER = "{url}"', 1)
        return Response(text, media_type="text/x-python")

    async def register(self, request: Request) -> Any:
        wanted = msgspec.json.decode(await request.body(), type=Registration)
        token = bearer(request)
        by = request.scope.get("dstack.caller", "nobody")
        if by == "nobody" and not token:
            raise UnauthorizedError("the server requires a token", hint="set DSTACK_TOKEN")
        return await self.parts.registrations.register(wanted, by="token" if by == "nobody" else by, token=token)

    async def heartbeat(self, request: Request) -> Any:
        beat = msgspec.json.decode(await request.body(), type=Heartbeat)
        return await self.parts.registrations.heartbeat(request.path_params["name"], beat)

    async def all(self, request: Request) -> Any:
        return self.parts.registrations.all()

    async def approve(self, request: Request) -> Any:
        return self.parts.registrations.approve(request.path_params["name"])

    async def token(self, request: Request) -> Any:
        return self.parts.registrations.token()

    def table(self) -> Table:
        """Method, path and endpoint of each route below /v1."""
        return [
            ("POST", "/registrations", self.register),
            ("GET", "/registrations", self.all),
            ("POST", "/registrations/{name}/heartbeat", self.heartbeat),
            ("POST", "/registrations/{name}/approve", self.approve),
            ("POST", "/registration-tokens", self.token),
        ]


def bearer(request: Request) -> str:
    """Return the bearer token of a request, or ''."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token if scheme.lower() == "bearer" else ""
