"""A connection to a loopback server that can be slowed down."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

PIECE = 16 * 1024


class Throttle:
    """Forwards connections to `port`, with at most `speed` bytes per second of answers and `sent` bytes per second of
    requests; None for no limit. Both can be changed at any time."""

    def __init__(self, port: int) -> None:
        self.speed: float | None = None
        self.sent: float | None = None
        self._target = port
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join()
        self._listener.close()

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            there = threading.Thread(target=self._pass, args=(client, server, False), daemon=True)
            there.start()
            self._pass(server, client, True)
            there.join()

    def _pass(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        source.settimeout(0.2)
        while not self._closed.is_set():
            try:
                data = source.recv(PIECE)
                target.sendall(data)
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
            except TimeoutError:
                continue
            except OSError:
                break
            speed = self.speed if back else self.sent
            if speed is not None:
                self._closed.wait(len(data) / speed)
        for each in (source, target):
            with contextlib.suppress(OSError):  # the other way was first
                each.shutdown(socket.SHUT_RDWR)
