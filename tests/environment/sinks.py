"""Servers that get messages: over HTTP, as moody as a test wants, and by SMTP."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Got:
    """A request that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebSink:
    """An HTTP server that notes each request. `moods` says what it does to the next ones: a status to answer with,
    "cut" to hang up after it has read the request, "slow" to send a byte at a time for ever. Then it answers 200."""

    moods: list[int | str] = field(default_factory=list)
    got: list[Got] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    answer: bytes = b"ok"
    certificate: tuple[Path, Path] | None = None
    open: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve, and yield `HOST:PORT`."""
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.got.append(Got(self.path, {name.lower(): text for name, text in self.headers.items()}, body))
                sink.react(self, sink.moods.pop(0) if sink.moods else 200)

            def log_message(self, *given: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *given: Any) -> None:
                """The other side may hang up at any time."""

        server = Server(("127.0.0.1", 0), Handler)
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            self.open.set()
            server.shutdown()
            thread.join()
            server.server_close()

    def react(self, handler: BaseHTTPRequestHandler, mood: int | str) -> None:
        if mood == "cut":
            handler.connection.close()
            return
        if mood == "slow":
            while not self.open.wait(0.05):
                handler.wfile.write(b"H")
        handler.send_response(mood if isinstance(mood, int) else 200)
        for name, text in self.headers.items():
            handler.send_header(name, text)
        handler.send_header("Content-Length", str(len(self.answer)))
        handler.end_headers()
        handler.wfile.write(self.answer)


@dataclass
class MailSink:
    """A mail server that notes each mail. With `login` (user, password) it wants that; with a certificate it offers
    TLS. `refusal` is what it answers to a mail."""

    login: tuple[str, str] | None = None
    certificate: tuple[Path, Path] | None = None
    refusal: str = ""
    got: list[Envelope] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve, and yield `HOST:PORT`."""
        context = None
        if self.certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
        more: dict[str, Any] = {"auth_required": True, "authenticator": self.authenticate} if self.login else {}
        with socket.socket() as free:  # the controller can't say which port it chose
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        controller = Controller(self, "127.0.0.1", port, tls_context=context, **more)
        controller.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            controller.stop()

    def authenticate(self, server: SMTP, session: Session, envelope: Envelope, kind: str, given: Any) -> AuthResult:
        wanted = self.login and tuple(text.encode() for text in self.login)
        right = isinstance(given, LoginPassword) and (given.login, given.password) == wanted
        return AuthResult(success=right, handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self.refusal:
            return self.refusal
        self.got.append(envelope)
        return "250 taken as 4711"
