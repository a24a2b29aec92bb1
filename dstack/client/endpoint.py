"""A server's address, and how to connect to it."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from dstack.errors import UsageError


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect. Raises OSError if no server is listening."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


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
        connection = self._connection(timeout)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        if not self.unix:
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.unix:
            return UnixConnection(self.url, timeout)
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(parts.hostname or "", parts.port, timeout=timeout)
