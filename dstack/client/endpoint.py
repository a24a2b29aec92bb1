"""A server's address, and how to connect to it."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from dstack.errors import UsageError


@dataclass(frozen=True)
class Endpoint:
    """A unix socket's path, or an `http://` or `https://` URL with a token. `embedded` is the user's own server."""

    url: str
    token: str | None = None
    embedded: bool = False

    @classmethod
    def parse(cls, text: str, token: str | None = None) -> Endpoint:
        """Parse a URL or path. Raises UsageError if it is neither."""
        if text.startswith("unix://"):
            text = text.removeprefix("unix://")
        if text.startswith("/"):
            return cls(text)
        try:
            parts = urlsplit(text)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UsageError(f"'{text}' is not a valid server URL", hint="write http://HOST:PORT or /PATH/TO/SOCKET")
        return cls(text.rstrip("/"), token)

    @property
    def unix(self) -> bool:
        """Whether this is a unix socket on this machine."""
        return self.url.startswith("/")

    @property
    def prefix(self) -> str:
        """The part of a request's path before the route."""
        return "" if self.unix else urlsplit(self.url).path

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """Connect. `timeout`, in seconds, applies to connecting and to every read. Raises OSError."""
        parts = urlsplit("http://localhost" if self.unix else self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=timeout)
        try:
            if self.unix:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(timeout)
                connection.sock.connect(self.url)
            else:
                connection.connect()
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except BaseException:
            connection.close()
            raise
        return connection
