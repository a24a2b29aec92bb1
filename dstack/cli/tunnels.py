"""Ports of running containers on this machine: one thread for each that listens, and one for each connection."""

from __future__ import annotations

import errno
import re
import socket
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from dstack.cli.output import show
from dstack.client.client import Client
from dstack.client.connection import problem_error
from dstack.client.stream import PIECE, Stream
from dstack.errors import DstackError, UsageError
from dstack.model.api import wire
from dstack.model.api.jobs import JobView
from dstack.model.api.streams import FrameKind, StreamEnd

HERE = "127.0.0.1"
AT_ONCE = 32
"""Connections through one port at the same time. More have to wait."""


@dataclass(frozen=True)
class PortWish:
    """`-p LOCAL:PORT`, or `-p PORT`, which takes any other local port if the same one is taken."""

    local: int
    port: int
    exact: bool = False


def port_wish(text: str) -> PortWish:
    """Parse the value of -p. Raises UsageError."""
    match = re.fullmatch(r"(?:([0-9]{1,5}):)?([0-9]{1,5})", text)
    numbers = [int(number) for number in match.groups() if number] if match else []
    if not numbers or any(not 1 <= number <= 65535 for number in numbers):
        raise UsageError(f"-p: '{text}' is not a port; write PORT or LOCAL_PORT:PORT, such as 8888 or 9000:8888")
    return PortWish(numbers[0], numbers[-1], exact=len(numbers) == 2)


class Tunnels(ExitStack):
    """Listens on local ports until it is closed. It opens those of `wishes` at once, so that a port that is taken is
    noticed before anything is submitted; `connect` says where they lead."""

    def __init__(self, wishes: Iterable[str]) -> None:
        super().__init__()
        self._wished = [(wish.port, self._listen(wish)) for wish in map(port_wish, wishes)]

    def connect(self, client: Client, jobs: Sequence[JobView], workflow: str) -> None:
        """Forward the wished ports to the job of this workflow, and its own ports to each job. Says where they are."""
        for job in jobs:
            if job.workflow == workflow:
                for port, listening in self._wished:
                    self._forward(client, job, port, listening)
            wished = [port for port, _ in self._wished] if job.workflow == workflow else []
            for port in () if job.cached or job.status.finished else job.ports:
                if port not in wished:
                    self._forward(client, job, port, self._listen(PortWish(port, port)))

    def _listen(self, wish: PortWish) -> socket.socket:
        """Return a socket that listens on the local port, or on another one if that is taken."""
        try:
            return self.enter_context(listener(wish.local))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            what = "is taken" if error.errno == errno.EADDRINUSE else "needs root"
        other = self.enter_context(listener(0))
        free = other.getsockname()[1]
        if wish.exact:
            self.close()
            raise UsageError(f"port {wish.local} of this machine {what}", hint=f"-p {free}:{wish.port}")
        show.say(f"port {wish.local} of this machine {what}; using {free} instead")
        return other

    def _forward(self, client: Client, job: JobView, port: int, listening: socket.socket) -> None:
        show.say(f"{job.workflow}: port {port} is at http://{HERE}:{listening.getsockname()[1]}")
        tunnel = Tunnel(client, job.id, port, listening)
        threading.Thread(target=tunnel.accept, daemon=True).start()


def listener(port: int) -> socket.socket:
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HERE, port))
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening


class Tunnel:
    """One local port that leads to a port of a job's container."""

    def __init__(self, client: Client, job: str, port: int, listening: socket.socket) -> None:
        self.client, self.job, self.port, self.listening = client, job, port, listening
        self._room = threading.Semaphore(AT_ONCE)
        self._said: set[str] = set()

    def accept(self) -> None:
        """Accept connections until the command ends, which closes the socket."""
        while True:
            self._room.acquire()
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, closing(self.client.forward(self.job, self.port)) as stream:
                relay(stream, connection)
        except DstackError as error:
            self._say(error.message)
        finally:
            self._room.release()

    def _say(self, text: str) -> None:
        """Say it once: a browser tries again and again."""
        if text not in self._said:
            self._said.add(text)
            show.say(f"port {self.port}: {text}", style="yellow")


def relay(stream: Stream, connection: socket.socket) -> None:
    """Pass bytes in both directions until either side ends."""
    reading = True
    while True:
        inputs = [connection.fileno()] if reading and stream.has_room else []
        try:
            if stream.wait(inputs):
                data = connection.recv(PIECE)
                stream.send(FrameKind.DATA, data) if data else stream.send(FrameKind.END)
                reading = bool(data)
            for kind, payload in stream.receive():
                if kind is FrameKind.DATA:
                    connection.sendall(payload)
                elif kind is FrameKind.EXIT:
                    problem = wire.decode(payload, StreamEnd).problem
                    if problem is not None:
                        raise problem_error(problem)
                    return
        except ConnectionError:  # the local side has gone
            return
