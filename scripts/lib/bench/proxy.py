"""A proxy to a port of this machine, which adds a delay in each direction and counts bytes."""

from __future__ import annotations

import queue
import socket
import threading
import time


class Proxy:
    """Each byte arrives `delay` seconds after it was sent, however much is under way: a long link, not a slow one."""

    def __init__(self, port: int, delay: float = 0.0) -> None:
        self.target = port
        self.delay = delay
        self.count = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self.target))
            for source, target in ((near, far), (far, near)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
                threading.Thread(target=self._read, args=(source, under_way), daemon=True).start()
                threading.Thread(target=self._write, args=(target, under_way), daemon=True).start()

    def _read(self, source: socket.socket, under_way: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(1 << 18)
            except OSError:
                data = b""
            with self._lock:
                self.count += len(data)
            under_way.put((time.monotonic() + self.delay, data))

    @staticmethod
    def _write(target: socket.socket, under_way: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        while True:
            due, data = under_way.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                target.sendall(data)
            except OSError:
                return
