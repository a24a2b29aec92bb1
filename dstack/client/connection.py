"""Requests to one server. Every command imports this, so it imports only the standard library and msgspec."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from dstack import __version__, errors
from dstack.client import tls
from dstack.client.settings import Endpoint, user
from dstack.errors import DstackError, ErrorCode, TryAgainError, UsageError, reason
from dstack.model.api import wire
from dstack.model.api.server import API, Problem
from dstack.model.api.streams import UPGRADE

T = TypeVar("T")

ANSWER_SECONDS = 120.0
"""Seconds that a simple request may take."""
WORK_SECONDS = 900.0
"""Seconds that a request may take if the server talks to hosts for it."""
BUSY_SECONDS = 15.0
"""How long to ask a server again that asks for it."""


class BrokenAnswerError(DstackError):
    """The connection broke before the response arrived. The request may or may not have been carried out."""

    code = ErrorCode.CONNECTION_BROKE


def ignore(text: str) -> None:
    """Discard the text."""


@dataclass
class Connection:
    """Sends requests to one server. `start` starts it if it is not running (None: never start it). `say` prints a
    warning to the user. `tolerant` accepts any server version. Thread-safe."""

    endpoint: Endpoint
    start: Callable[[], None] | None = None
    say: Callable[[str], None] = ignore
    tolerant: bool = False
    _warned: bool = False

    def _get(
        self, path: str, kind: type[T], query: Mapping[str, str | None] | None = None, seconds: float = ANSWER_SECONDS
    ) -> T:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        asked = f"?{urlencode(given, errors='surrogateescape')}" if given else ""
        return self._decode(self._send("GET", path + asked, seconds), kind)

    def _post(self, path: str, kind: type[T], body: Any = None, method: str = "POST") -> T:
        data = b"" if body is None else wire.encode(body)
        return self._decode(self._send(method, path, WORK_SECONDS, lambda: [data], len(data)), kind)

    def _send(
        self,
        method: str,
        path: str,
        seconds: float,
        body: Callable[[], Iterable[bytes]] = list,
        size: int = 0,
    ) -> http.client.HTTPResponse:
        """Send a request and return the checked response. If the connection breaks, only GET is sent again. A server
        that did nothing, and asks to be asked again soon, is asked again for a while."""
        patient = time.monotonic() + BUSY_SECONDS
        while True:
            response = self._exchanged(method, path, seconds, body, size)
            pause = asked_again(response)
            if pause is None or time.monotonic() + pause > patient:
                self._check(response)
                return response
            response.close()
            time.sleep(pause)

    def _exchanged(
        self, method: str, path: str, seconds: float, body: Callable[[], Iterable[bytes]], size: int
    ) -> http.client.HTTPResponse:
        try:
            return self._exchange(method, path, seconds, body, size)
        except BrokenAnswerError:
            if method != "GET":
                raise
            try:
                return self._exchange(method, path, seconds, body, size)
            except BrokenAnswerError as error:
                raise TryAgainError(error.message, hint=error.hint, code=error.code) from error

    def _exchange(
        self, method: str, path: str, seconds: float, body: Callable[[], Iterable[bytes]], size: int
    ) -> http.client.HTTPResponse:
        connection, response = self._ask(method, path, seconds, body, {"Content-Length": str(size)})
        if connection.sock is not None:
            # The response keeps the connection open until it is closed.
            connection.sock.close()
        return response

    def _upgrade(self, path: str, body: bytes) -> socket.socket:
        """Send a POST that turns its connection into a stream, and return that."""
        headers = {"Content-Length": str(len(body)), "Connection": "Upgrade", "Upgrade": UPGRADE}
        connection, response = self._ask("POST", path, WORK_SECONDS, lambda: [body], headers)
        self._check(response)
        if response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            response.close()
            connection.close()
            message = f"{self.endpoint.url} did not upgrade the connection (status {response.status})"
            raise DstackError(message, hint="a reverse proxy has to pass on the headers Upgrade and Connection")
        return connection.sock

    def _ask(
        self,
        method: str,
        path: str,
        seconds: float,
        body: Callable[[], Iterable[bytes]],
        given: Mapping[str, str],
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = self._open(seconds)
        headers = {"X-Dstack-Version": __version__, "Connection": "close", **given}
        if self.endpoint.embedded and os.environ.get("SSH_AUTH_SOCK"):
            headers["X-Dstack-Agent"] = os.path.abspath(os.environ["SSH_AUTH_SOCK"])
        headers["X-Dstack-User"] = quote(user())
        if self.endpoint.token:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        try:
            # A server may refuse a request before reading all of it; its response can still be read.
            with suppress(BrokenPipeError, ConnectionResetError):
                blocks = body() if given["Content-Length"] != "0" else None
                connection.request(method, f"{self.endpoint.prefix}/v1{path}", blocks, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            tls.refuse_wrong_scheme(self.endpoint)
            if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
                raise self._foreign() from error
            raise self._broken(error) from error
        return connection, response

    def _open(self, seconds: float) -> http.client.HTTPConnection:
        try:
            return self.endpoint.open(seconds)
        except OSError as error:
            tls.refuse_certificate(self.endpoint, error)
            if self.start is None:
                raise self._unreachable(error) from error
        self.start()
        try:
            return self.endpoint.open(seconds)
        except OSError as error:
            raise self._unreachable(error) from error

    def _check(self, response: http.client.HTTPResponse) -> None:
        version, api = response.getheader("X-Dstack-Version"), response.getheader("X-Dstack-Api")
        if version is None or api is None:
            response.close()
            if response.status in (502, 503, 504):
                message = f"can't reach the server behind {self.endpoint.url} (status {response.status})"
                raise TryAgainError(message, code=ErrorCode.SERVER_UNREACHABLE)
            raise self._foreign()
        if not self.tolerant:
            self._compare(version, api)
        if response.status >= 400:
            with response:
                raise problem(response.status, response.read())

    def _compare(self, version: str, api: str) -> None:
        where = "this machine's own server" if self.endpoint.embedded else f"the server at {self.endpoint.url}"
        remedy = "restart it with `dstack server stop`; runs continue, and the next command starts the new version"
        if not self.endpoint.embedded:
            remedy = f"install dstack {version} on this machine, or update the server"
        if api != str(API):
            message = f"this is dstack {__version__}, {where} is dstack {version}: they can't talk to each other"
            raise DstackError(message, hint=remedy)
        if version != __version__ and not self._warned:
            self._warned = True
            self.say(f"warning: this is dstack {__version__}, {where} is dstack {version}; {remedy}")

    def _decode(self, response: http.client.HTTPResponse, kind: type[T]) -> T:
        with self._reading(response):
            data = response.read()
        try:
            return wire.decode(data, kind)
        except msgspec.DecodeError as error:
            raise DstackError(f"can't read the server's response: {error}") from error

    @contextmanager
    def _reading(self, response: http.client.HTTPResponse) -> Iterator[None]:
        """Close the response at the end. Raises BrokenAnswerError if the connection breaks before."""
        try:
            with response:
                yield
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _unreachable(self, error: OSError) -> TryAgainError:
        hint = "check the URL with `dstack config`, and run `dstack server status` on the server's machine"
        message = f"can't reach the server at {self.endpoint.url}: {reason(error)}"
        return TryAgainError(message, hint=hint, code=ErrorCode.SERVER_UNREACHABLE)

    def _foreign(self) -> DstackError:
        return DstackError(f"{self.endpoint.url} is not a dstack server", hint="check the URL with `dstack config`")

    def _broken(self, error: Exception) -> BrokenAnswerError:
        hint = "the request may have been carried out; check with `dstack runs`"
        return BrokenAnswerError(f"the connection to the server broke: {reason(error)}", hint=hint)


def asked_again(response: http.client.HTTPResponse) -> float | None:
    """Return after how many seconds a server that did nothing wants to be asked again, or None."""
    given = response.getheader("Retry-After", "")
    ours = response.status == 503 and response.getheader("X-Dstack-Api") is not None
    return float(given) if ours and given.isdecimal() else None


def problem(status: int, body: bytes) -> DstackError:
    """Return the exception that the server met, from its error response."""
    try:
        met = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        return DstackError(f"the server answered with status {status}: {body[:200].decode(errors='replace').strip()}")
    return problem_error(met)


def problem_error(met: Problem) -> DstackError:
    """Return the exception that the server met."""
    special: dict[str, Any] = {"host-key": errors.UnknownHostKeyError, "missing-base": errors.MissingBaseError}
    kind = special.get(met.kind) or getattr(errors, met.kind, None)
    if kind is errors.ProjectError:
        error: DstackError = errors.ProjectError(met.message.splitlines(), hint=met.hint)
    elif isinstance(kind, type) and issubclass(kind, DstackError) and kind is not errors.CommandError:
        error = kind(met.message, hint=met.hint)
    else:
        error = (UsageError if met.exit_code == 2 else DstackError)(met.message, hint=met.hint)
    if isinstance(error, errors.UnknownHostKeyError):
        error.fingerprint = met.fingerprint or ""
    if isinstance(error, errors.MissingBaseError):
        error.known = met.known
    error.exit_code, error.code = met.exit_code, met.code
    return error
