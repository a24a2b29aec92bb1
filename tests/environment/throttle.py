"""A connection to a loopback server that can be slowed down, frozen, cut and refused."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

PIECE = 16 * 1024


class Throttle:
    """Forwards connections to `port`, with at most `speed` bytes per second of answers and `sent` bytes per second of
    requests; None for no limit. `stall` says how long (in seconds) a piece waits, as for a lost packet. While `frozen`,
    nothing passes and nothing ends. All can be changed at any time.
    """

    def __init__(self, port: int) -> None:
        self.speed: float | None = None
        self.sent: float | None = None
        self.stall: Callable[[], float] = lambda: 0.0
        self.frozen = False
        self._target = port
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept, self._listener)

    def close(self) -> None:
        """Stop listening, and cut all connections."""
        self._closed.set()
        self.refuse()
        for each in self._threads:
            each.join()

    def refuse(self) -> None:
        """Stop listening: new connections are refused. Open ones stay open."""
        with contextlib.suppress(OSError):  # it has stopped already
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def accept(self) -> None:
        """Listen again, on the same port, after `refuse`."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._start(self._accept, self._listener)

    def cut(self) -> None:
        """Reset all open connections."""
        for each in tuple(self._open):
            with contextlib.suppress(OSError):  # it has just ended
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                each.shutdown(socket.SHUT_RDWR)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            client.close()  # as a server that does not run answers
            return
        with client, server:
            self._open |= {client, server}
            there = threading.Thread(target=self._pass, args=(client, server, False), daemon=True)
            there.start()
            self._pass(server, client, True)
            there.join()
            self._open -= {client, server}

    def _pass(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        source.settimeout(0.2)
        while not self._closed.is_set():
            if self.frozen:
                self._closed.wait(0.05)
                continue
            try:
                data = source.recv(PIECE)
                self._closed.wait(self.stall())
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
            with contextlib.suppress(OSError):  # the other direction was first
                each.shutdown(socket.SHUT_RDWR)
