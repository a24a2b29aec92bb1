"""Signing in with a token or a one-time link, and out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dstack.errors import UnauthorizedError
from dstack.server.web import html
from dstack.server.web.forms import form_of
from dstack.server.web.sessions import WebSessions
from dstack.server.web.site import Site, base_of

LOCAL = re.compile(r"/(?![/\\])[!-~]*")
"""A path on this server, and not a URL that names another one."""


class SignIn(Struct, kw_only=True):
    """The form of the sign-in page."""

    token: str = ""
    next: str = "/"


class SignOut(Struct, kw_only=True):
    """The form that ends the session."""

    form_key: str = ""


@dataclass
class SignInPages:
    site: Site
    sessions: WebSessions

    async def show(self, request: Request) -> Response:
        """Show the form; or open the session that a one-time link is for, whose URL is gone with that."""
        code = request.query_params.get("code")
        if code:
            return self.entered(request, self.sessions.follow(code), "/")
        following = local(request.query_params.get("next", "/"))
        if request.scope["dstack.caller"].role is not None:
            return RedirectResponse(f"{base_of(request)}{following}", 303)
        return self.asked(request, following)

    async def enter(self, request: Request) -> Response:
        """Open a session for the holder of a token."""
        given, _ = await form_of(request, SignIn)
        following = local(given.next)
        try:
            secret = self.sessions.sign_in(given.token.strip())
        except UnauthorizedError as error:
            return self.asked(request, following, error)
        return self.entered(request, secret, following)

    async def leave(self, request: Request) -> Response:
        """End the session."""
        _, key = await form_of(request, SignOut)
        self.sessions.check_form(request.scope, key)
        self.sessions.store.sessions.close(self.sessions.secret(request.scope))
        response = RedirectResponse(f"{base_of(request)}/login", 303)
        self.sessions.set_cookie(response, "", request.scope)
        return response

    def asked(self, request: Request, following: str, error: UnauthorizedError | None = None) -> Response:
        values = {**self.site.values(request), "next": following, "error": error}
        return HTMLResponse(html.page("login", values), 401 if error else 200)

    def entered(self, request: Request, secret: str, following: str) -> Response:
        response = RedirectResponse(f"{base_of(request)}{following}", 303)
        self.sessions.set_cookie(response, secret, request.scope)
        return response


def local(path: str) -> str:
    """Return where to go after signing in: nowhere but to a page of this server."""
    return path if LOCAL.fullmatch(path) else "/"
