"""A small HTTP proxy that runs as its own process. It serves requests with absolute URLs, and CONNECT.

`python -m tests.environment.forward LOGIN` listens on a free loopback port. It prints the port on the first line, and
then one line per request.
"""

from __future__ import annotations

import base64
import contextlib
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]
BLOCK = 1 << 16


class Forward(BaseHTTPRequestHandler):
    """Serve one request and close the connection."""

    login = ""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log nothing: requests are printed elsewhere."""

    def serve(self) -> None:
        os.write(sys.stdout.fileno(), f"{self.command} {self.path}\n".encode())
        wanted = f"Basic {base64.b64encode(self.login.encode()).decode()}"
        if self.login and self.headers.get("Proxy-Authorization") != wanted:
            self.send_error(407)
            return
        tunnel = self.command == "CONNECT"
        target = urlsplit(f"//{self.path}" if tunnel else self.path)
        with socket.create_connection((target.hostname, target.port)) as server:
            if tunnel:
                self.wfile.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                told = [f"{name}: {value}" for name, value in self.headers.items() if not name.startswith("Proxy-")]
                line = f"GET {target.path}?{target.query} HTTP/1.1"
                server.sendall("\r\n".join([line, *told, "Connection: close", "", ""]).encode())
            self.passed(server)
        self.close_connection = True

    do_GET = do_CONNECT = serve  # noqa: N815

    def passed(self, server: socket.socket) -> None:
        """Copy bytes both ways until one side ends."""
        with selectors.DefaultSelector() as ready:
            for one, other in ((self.connection, server), (server, self.connection)):
                ready.register(one, selectors.EVENT_READ, other)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(BLOCK)  # type: ignore[union-attr]
                    if not data:
                        return
                    key.data.sendall(data)


class ProxyProcess:
    """Where it listens, and which requests it got."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        self.port = int(process.stdout.readline())
        self.asked: list[str] = []
        self._lines = process.stdout
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._lines:
            self.asked.append(line.strip())


@contextlib.contextmanager
def forward(login: str = "") -> Iterator[ProxyProcess]:
    """Run a proxy. `login` is the USER:PASSWORD that it asks for."""
    command = [sys.executable, "-m", "tests.environment.forward", login]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        try:
            yield ProxyProcess(process)
        finally:
            process.kill()


if __name__ == "__main__":
    Forward.login = sys.argv[1]
    listener = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    print(listener.server_address[1], flush=True)
    listener.serve_forever()
