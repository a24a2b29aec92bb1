"""Messages over HTTP: webhooks, Slack and ntfy."""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass

from dstack import __version__
from dstack.model.notify.forms import Request, request
from dstack.model.notify.message import Message
from dstack.model.notify.target import Target
from dstack.notify.addresses import Allowed, connect
from dstack.notify.limit import READ, limited

BODY = 2000
"""Bytes of a response that are read."""
LONGEST_WAIT = 3600.0
"""Seconds that a target may ask to wait."""


@dataclass(frozen=True)
class Response:
    """A response, `body` being its first line. `again` are the seconds of Retry-After."""

    status: int
    phrase: str
    body: str
    again: float | None


def send(message: Message, target: Target, now: float, allowed: Allowed) -> Response:
    """Send a message; `now` is in seconds since the epoch. Raises OSError, HTTPException and ForbiddenError."""
    wanted = request(message, target, now)
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.default_port = 443 if target.scheme == "https" else 80  # for the Host header
    plain = connect(target.host, target.port, READ, allowed)
    try:
        with limited(plain):
            connection.sock = plain
            if target.scheme == "https":
                connection.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
            return exchanged(connection, wanted)
    finally:
        connection.close()
        plain.close()


def exchanged(connection: http.client.HTTPConnection, wanted: Request) -> Response:
    headers = {"User-Agent": f"dstack/{__version__}", "Connection": "close", **wanted.headers}
    connection.request("POST", wanted.path, wanted.body, headers)
    got = connection.getresponse()
    body = got.read(BODY).decode(errors="replace").strip()
    return Response(got.status, got.reason, body.partition("\n")[0], wait(got.headers.get("Retry-After", "")))


def wait(text: str) -> float | None:
    """Return the seconds in a Retry-After header; None for a date or nothing."""
    return min(float(text), LONGEST_WAIT) if text.isdecimal() and text.isascii() and len(text) < 10 else None
