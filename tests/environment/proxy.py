"""A proxy in front of a real S3 server that counts requests and fails on demand."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

BLOCK = 1 << 16
HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
STATUS = {"SlowDown": 503, "InternalError": 500}
"""The HTTP status of S3's errors, where it is not 403."""
REFUSAL = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code} by the proxy</Message></Error>"


@dataclass
class Passed:
    """A request. `status` is 0 until it is answered. `sent` and `received` are the sizes of both bodies in bytes;
    `connection` identifies the connection."""

    method: str
    key: str
    query: dict[str, str]
    agent: str
    range: str | None
    connection: int
    sent: int = 0
    received: int = 0
    status: int = 0


class Proxy:
    """Forwards every request to a loopback port. The Host header stays as the client sent it: it is signed. With
    a certificate and its key in a file, it speaks TLS.

    `refuse` returns the S3 error for a request, or None; `cut` returns after how many bytes of the answer the
    connection breaks, or None.
    """

    def __init__(self, port: int, certificate: Path | None = None) -> None:
        self.upstream = port
        self.passed: list[Passed] = []
        self.refuse: Callable[[Passed], str | None] = lambda request: None
        self.cut: Callable[[Passed], int | None] = lambda request: None
        handler = type("ProxyHandler", (Handler,), {"proxy": self})
        self._server = Server(("127.0.0.1", 0), handler)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_address[1]}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stored(self) -> Counter[tuple[str, str]]:
        """Return how often S3 accepted each part, by key and part number."""
        puts = [each for each in self.passed if each.method == "PUT" and each.status == http.HTTPStatus.OK]
        return Counter((each.key, each.query.get("partNumber", "")) for each in puts)

    def close(self) -> None:
        """Stop listening: connections are refused."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: the tests do that on purpose."""


class Handler(BaseHTTPRequestHandler):
    """Serve one connection."""

    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""

    def serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        agent, wanted, port = self.headers.get("User-Agent", ""), self.headers.get("Range"), self.client_address[1]
        seen = Passed(self.command, unquote(parts.path).lstrip("/"), query, agent, wanted, port)
        self.proxy.passed.append(seen)
        code = self.proxy.refuse(seen)
        if code:
            self.refused(seen, code)
        else:
            self.passed_on(seen)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = serve  # noqa: N815

    def refused(self, seen: Passed, code: str) -> None:
        while seen.sent < self.length and (data := self.rfile.read(min(BLOCK, self.length - seen.sent))):
            seen.sent += len(data)
        body = REFUSAL.format(code=code).encode()
        seen.status = STATUS.get(code, 403)
        self.send_response(seen.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")

    def passed_on(self, seen: Passed) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=120)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect"):
                    upstream.putheader(name, value)
            upstream.endheaders()
            refused = False
            while seen.sent < self.length and (data := self.rfile.read(min(BLOCK, self.length - seen.sent))):
                seen.sent += len(data)
                with contextlib.suppress(ConnectionError):  # S3 may answer before it has read all
                    if not refused:
                        refused = True
                        upstream.send(data)
                        refused = False
            self.answered(seen, upstream.getresponse())
        except (OSError, http.client.HTTPException):
            self.close_connection = True  # as the client of a server that dies sees it
        finally:
            upstream.close()

    def answered(self, seen: Passed, answer: http.client.HTTPResponse) -> None:
        whole = answer.length is not None or self.command == "HEAD"
        body = b"" if whole else answer.read()
        length = answer.headers.get("Content-Length", "0") if whole else str(len(body))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in HOP:
                self.send_header(name, value)
        if answer.status != http.HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", length)
        self.end_headers()
        seen.status = answer.status
        limit = self.proxy.cut(seen)
        while data := body or answer.read(BLOCK):
            body = b""
            if limit is not None and seen.received + len(data) > limit:
                self.wfile.write(data[: limit - seen.received])
                seen.received = limit
                self.close_connection = True
                return
            seen.received += len(data)
            self.wfile.write(data)

    @property
    def length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)
