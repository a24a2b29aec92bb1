"""Who a browser is: the cookie of its session, the one-time link that opens one, and proof that a form is ours."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass, field
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie

from starlette.responses import Response
from starlette.types import Scope

from dstack.errors import ForbiddenError, UnauthorizedError
from dstack.store.store import Store
from dstack.store.tables.sessions import Session
from dstack.store.tables.tokens import hashed

LINK_SECONDS = 300.0
"""How long a one-time link is valid."""
MOST_LINKS = 1000
COOKIE_SECONDS = 14 * 86400


@dataclass(frozen=True)
class OneTimeLink:
    """For whom a link opens a session, and until when (monotonic, seconds)."""

    token: str | None
    user: str
    until: float


@dataclass
class WebSessions:
    """The sessions of the web page. Links live in memory: one that a restart of the server ends is made again."""

    store: Store
    links: dict[str, OneTimeLink] = field(default_factory=dict)

    @property
    def cookie(self) -> str:
        """The cookie's name: a browser sends it to every port of a host, so each server has its own."""
        return f"dstack-{self.store.identity.id}"

    def secret(self, scope: Scope) -> str:
        """Return the session's secret as the browser sent it, "" for none."""
        cookies = SimpleCookie()
        try:
            for name, value in scope["headers"]:
                if name == b"cookie":
                    cookies.load(value.decode("latin-1"))
        except CookieError:
            return ""
        return cookies[self.cookie].value if self.cookie in cookies else ""

    def find(self, scope: Scope) -> Session | None:
        """Return the session of a request, or None."""
        secret = self.secret(scope)
        return self.store.sessions.find(secret) if secret else None

    def link(self, token: str | None, user: str) -> str:
        """Return the code of a link that opens one session for this person."""
        now = time.monotonic()
        self.links = {code: link for code, link in self.links.items() if link.until > now}
        while len(self.links) >= MOST_LINKS:
            self.links.pop(next(iter(self.links)))
        code = secrets.token_urlsafe(32)
        self.links[hashed(code)] = OneTimeLink(token, user, now + LINK_SECONDS)
        return code

    def follow(self, code: str) -> str:
        """Use a link up, and return the secret of the session. Raises UnauthorizedError."""
        link = self.links.pop(hashed(code), None)
        known = link is not None and (link.token is None or self.named(link.token))
        if link is None or link.until < time.monotonic() or not known:
            message = "this link was used already, or is older than five minutes"
            raise UnauthorizedError(message, hint="make a new one: dstack ui")
        return self.store.sessions.open(link.token, link.user)

    def named(self, token: str) -> bool:
        return any(each.name == token for each in self.store.tokens.all())

    def sign_in(self, token: str) -> str:
        """Return the secret of a new session for the holder of a token. Raises UnauthorizedError for a wrong one."""
        known = self.store.tokens.find(token)
        if known is None:
            hint = "an admin creates one with `dstack server token create NAME`"
            raise UnauthorizedError("the server does not accept this token", hint=hint)
        self.store.tokens.use(known)
        return self.store.sessions.open(known.name, known.name)

    def set_cookie(self, response: Response, secret: str, scope: Scope) -> None:
        """Give the browser its session, "" to take it away. Only this server gets it, and no script can read it."""
        response.set_cookie(
            self.cookie,
            secret,
            max_age=COOKIE_SECONDS if secret else 0,
            path=scope.get("dstack.base_path") or "/",
            secure=scope["scheme"] == "https",
            httponly=True,
            samesite="strict",
        )

    def form_key(self, scope: Scope) -> str:
        """Return what every form of the session contains; another web site can't know it."""
        secret = self.secret(scope)
        return sha256(f"form {secret}".encode()).hexdigest()[:32] if secret else ""

    def check_form(self, scope: Scope, given: str) -> None:
        """Raise ForbiddenError unless the form was made for the session."""
        if not hmac.compare_digest(given.encode(), self.form_key(scope).encode()):
            message = "the form does not belong to this session, so nothing was done"
            raise ForbiddenError(message, hint="reload the page, and send it again")
