"""The connections to one machine: one attempt to open each, and the sessions on it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import asyncssh
from anyio import move_on_after

from dstack.errors import HostUnreachableError
from dstack.hosts.ssh.pulse import Pulse

T = TypeVar("T")

SESSIONS = 8
"""Per connection. sshd allows 10 (MaxSessions); with 10 in use some are refused, with 8 none was."""

_KEPT_FREE = 2
"""Sessions that long-lived streams leave for runs."""


class Shared(Generic[T]):
    """Runs one attempt at a time. Everyone who asks while it is in progress gets its outcome. `latest` is the last
    outcome that was not an error."""

    def __init__(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.latest: T | None = None
        self._attempt = attempt
        self._task: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """Return the outcome of the current attempt, or of a new one. Cancelling a caller does not end the attempt."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._attempt())
            self._task.add_done_callback(self._ended)
        task = self._task
        await asyncio.wait({task})
        if task.cancelled():
            raise HostUnreachableError("dstack closed the connection before it was established")
        return task.result()

    async def cancel(self) -> None:
        """Cancel the current attempt."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _ended(self, task: asyncio.Task[T]) -> None:
        # retrieves the exception: all callers may have been cancelled before the attempt failed
        if not task.cancelled() and task.exception() is None:
            self.latest = task.result()


class Link:
    """One connection, and how many sessions are open on it. `limit` is lowered when the server refuses one."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        self.limit = SESSIONS
        self.sessions = 0
        self._streams = 0

    @property
    def alive(self) -> bool:
        """Whether the connection is open."""
        return not self.connection.is_closed()

    @property
    def pulse(self) -> Pulse:
        """When the machine was heard over it."""
        pulse: Pulse = self.connection.get_extra_info("pulse")
        return pulse

    def has_room(self, stream: bool) -> bool:
        """Whether one more session fits."""
        return self.sessions < self.limit and (not stream or self._streams < max(1, self.limit - _KEPT_FREE))

    def count(self, stream: bool, change: int) -> None:
        """Count a session that began (+1) or ended (-1)."""
        self.sessions += change
        if stream:
            self._streams += change


class Links:
    """Opens the first connection on first use, and another one when a stream finds no room, when a run has found none
    for `patience` seconds, or after a break. Concurrent callers share one attempt."""

    def __init__(
        self, dial: Callable[[], Coroutine[Any, Any, asyncssh.SSHClientConnection]], patience: float = 1.0
    ) -> None:
        self._dial = dial
        self._patience = patience
        self._links: list[Link] = []
        self._attempt = Shared(self._add)
        self._changed = asyncio.Event()
        self._waiting = 0
        self._closed = False
        self._answered: float | None = None

    @property
    def answered(self) -> float | None:
        """When the machine was heard last over any of them (by `steady`, seconds), None if never."""
        for link in self._links:
            self._answered = max(link.pulse.answered, self._answered or 0.0)
        return self._answered

    @property
    def silent(self) -> bool:
        """Whether the machine owes an answer on all open connections."""
        alive = [link for link in self._links if link.alive]
        return bool(alive) and all(link.pulse.silent for link in alive)

    async def take(self, stream: bool) -> Link:
        """Return a connection with one session counted on it. The caller must give it back."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while not self._closed:
            self._keep([link for link in self._links if link.alive])
            for link in self._links:
                if link.has_room(stream):
                    link.count(stream, 1)
                    return link
            if stream or not self._links or clock() >= until:
                await self._attempt.result()
            else:
                await self._change(until - clock())
        raise HostUnreachableError("dstack closed the connection to the host")

    def give_back(self, link: Link, stream: bool) -> None:
        """Count the session as ended. Closes an idle connection if there is another one."""
        link.count(stream, -1)
        others = [other for other in self._links if other.alive and other is not link]
        if link.sessions == 0 and others and not self._waiting:
            self._drop(link)
        self._changed.set()
        self._changed = asyncio.Event()

    def lower_limit(self, link: Link, error: Exception) -> bool:
        """After a refused session, lower the connection's limit and return True if other sessions are open on it: then
        their number is the likely cause. Otherwise drop the connection and return False."""
        if isinstance(error, asyncssh.ChannelOpenError) and link.alive and link.sessions > 0:
            link.limit = min(link.limit, link.sessions)
            return True
        self._drop(link)
        return False

    async def close(self) -> None:
        """Close all connections, even if commands are running."""
        self._closed = True
        self._changed.set()
        await self._attempt.cancel()
        links, self._links = self._links, []
        for link in links:
            link.connection.abort()
        for link in links:
            await link.connection.wait_closed()

    def _keep(self, links: list[Link]) -> None:
        _ = self.answered  # what the others heard is not forgotten
        self._links = links

    def _drop(self, link: Link) -> None:
        self._keep([other for other in self._links if other is not link])
        link.connection.close()

    async def _add(self) -> None:
        self._links.append(Link(await self._dial()))

    async def _change(self, seconds: float) -> None:
        self._waiting += 1
        try:
            with move_on_after(seconds):
                await self._changed.wait()
        finally:
            self._waiting -= 1
