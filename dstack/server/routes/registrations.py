"""The program `dstack-runner`, and its registration. Over TCP these need no server token: a registration is checked
by its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from dstack.errors import UnauthorizedError, UsageError
from dstack.model.runner.registration import Registered, Registration
from dstack.server.parts import Parts

PROGRAM = Path(__file__).parents[2] / "runner" / "__init__.py"
HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")


@dataclass
class RegistrationRoutes:
    """Endpoints."""

    parts: Parts

    def program(self, request: Request) -> Response:
        """Return the program, with this server's URL filled in."""
        host = request.headers.get("host", "")
        if not HOST.fullmatch(host):
            raise UsageError("the request's Host header is missing or not valid")
        scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
        url = f"{'https' if scheme == 'https' else 'http'}://{host}"
        text = PROGRAM.read_text().replace('SERVER = ""', f'SERVER = "{url}"', 1)
        return Response(text, media_type="text/x-python")

    async def register(self, request: Request, wanted: Registration) -> Registered:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token if scheme.lower() == "bearer" else ""
        by = request.scope.get("dstack.caller", "nobody")
        if by == "nobody" and not token:
            raise UnauthorizedError("the server requires a token", hint="set DSTACK_TOKEN")
        return await self.parts.registrations.register(wanted, by="token" if by == "nobody" else by, token=token)
