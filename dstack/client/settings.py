"""Which server the user's commands talk to (DSTACK_SERVER_URL, `dstack config --url` or the embedded one), and how."""

from __future__ import annotations

import getpass
import http.client
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from dstack.errors import FULL, DstackError, FileError, UsageError, reason
from dstack.model.paths import ServerLayout
from dstack.plumbing import disk


@dataclass(frozen=True)
class Endpoint:
    """A unix socket's path, or an `http://` or `https://` URL with a token. `embedded` is the user's own server. `ca`
    is a file with certificates of authorities to trust in addition to the system's."""

    url: str
    token: str | None = None
    embedded: bool = False
    ca: str | None = None

    @classmethod
    def parse(cls, text: str, token: str | None = None, ca: str | None = None) -> Endpoint:
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
            raise UsageError(
                f"'{text}' is not a valid server URL",
                hint="write https://HOST:PORT, http://HOST:PORT or /PATH/TO/SOCKET",
            )
        return cls(text.rstrip("/"), token, ca=ca)

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
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        if parts.scheme == "https":
            connection = secure_connection(parts.hostname or "", parts.port, timeout, self.ca)
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


def secure_connection(host: str, port: int | None, timeout: float, ca: str | None) -> http.client.HTTPSConnection:
    """Return a connection that will verify the server's certificate. Raises UsageError for a file without certificates
    of authorities."""
    import ssl

    context = ssl.create_default_context()
    try:
        if ca:
            context.load_verify_locations(ca)
    except OSError as error:
        message = f"the file of certificate authorities, {ca}, can't be read: {error.strerror or error}"
        raise UsageError(message, hint="dstack config --tls-ca FILE, or set DSTACK_TLS_CA") from error
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)


class ClientSettings(msgspec.Struct, omit_defaults=True):
    """The contents of DSTACK_HOME/config.json."""

    url: str | None = None
    token: str | None = None
    tls_ca: str | None = None


def load(home: Path) -> ClientSettings:
    """Return the saved settings, or empty ones."""
    path = ServerLayout(home).config
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClientSettings)
    except (FileNotFoundError, NotADirectoryError):  # a home that is a file is refused once something is written there
        return ClientSettings()
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{path} is damaged: {error}",
            hint=f"remove it with `rm {path}`, then run `dstack config --url URL --token TOKEN`",
        ) from error


def save(home: Path, settings: ClientSettings) -> None:
    """Replace the file atomically. Only its owner may read it, because it holds the token."""
    with using(home):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.write(ServerLayout(home).config, msgspec.json.encode(settings) + b"\n")


@contextmanager
def using(home: Path, kind: type[DstackError] = FileError) -> Iterator[None]:
    """Raise an error of this kind if dstack's home, or a file in it, can't be used."""
    try:
        yield
    except OSError as error:
        what = f"{error.filename}: " if error.filename not in (None, str(home)) else ""
        message = f"dstack's files can't be in {home}: {what}{reason(error)}"
        hint = "export DSTACK_HOME=FOLDER, a folder that you may write to"
        hint = "free space on its disk" if error.errno in FULL else hint
        raise kind(message, hint=hint) from error


def configured(home: Path) -> Endpoint | None:
    """Return the server that the user configured, or None for the embedded one. A saved token is sent only to the saved
    URL, and a saved certificate authority is trusted only there."""
    saved = load(home)
    url = os.environ.get("DSTACK_SERVER_URL") or saved.url
    token = os.environ.get("DSTACK_TOKEN") or (saved.token if url == saved.url else None)
    ca = os.environ.get("DSTACK_TLS_CA") or (saved.tls_ca if url == saved.url else None)
    return Endpoint.parse(url, token, ca) if url else None


def user() -> str:
    """Return the name of the user, even without a login shell's environment."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the password database has no such user
        return str(os.getuid())
