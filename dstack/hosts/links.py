"""The connections to one host, and the sessions that fit on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncssh

from dstack.errors import HostUnreachableError
from dstack.hosts.shared import Shared

SESSIONS = 8
"""sshd takes 10 on a connection (MaxSessions); with 10 in use some are refused, with 8 none was."""

_KEPT_FREE = 2
"""Of these, what long-lived streams leave to runs."""


class Link:
    """One connection and its sessions. `limit` falls when the host turns out to take fewer."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        self.limit = SESSIONS
        self._runs = 0
        self._streams = 0

    @property
    def sessions(self) -> int:
        """How many are open."""
        return self._runs + self._streams

    @property
    def alive(self) -> bool:
        """Whether a session may still be opened."""
        return not self.connection.is_closed()

    def has_room(self, stream: bool) -> bool:
        """Whether one more fits."""
        if self.sessions >= self.limit:
            return False
        return not stream or self._streams < max(1, self.limit - _KEPT_FREE)

    def count(self, stream: bool, change: int) -> None:
        """Note that a session began or ended."""
        if stream:
            self._streams += change
        else:
            self._runs += change


class Links:
    """Opens the first connection on first use, another when a stream finds no room or a run found none for
    `patience` seconds, and a new one after one broke. Callers at the same time share an attempt."""

    def __init__(
        self, dial: Callable[[], Coroutine[Any, Any, asyncssh.SSHClientConnection]], patience: float = 1.0
    ) -> None:
        self._dial = dial
        self._patience = patience
        self._links: list[Link] = []
        self._attempt: Shared[None] = Shared()
        self._changed = asyncio.Event()
        self._waiting = 0
        self._closed = False

    async def take(self, stream: bool) -> Link:
        """A connection with a session counted on it. To be given back."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._patience
        while not self._closed:
            self._links = [link for link in self._links if link.alive]
            for link in self._links:
                if link.has_room(stream):
                    link.count(stream, 1)
                    return link
            if stream or not self._links or clock() >= until:
                await self._attempt.result(self._add)
            else:
                await self._change(until - clock())
        raise HostUnreachableError("the connection to the host was closed here")

    def give_back(self, link: Link, stream: bool) -> None:
        """The session ended. A connection that nobody needs beside another one is closed."""
        link.count(stream, -1)
        others = [other for other in self._links if other.alive and other is not link]
        if link.sessions == 0 and others and not self._waiting:
            self.drop(link)
        self._changed.set()
        self._changed = asyncio.Event()

    def refused(self, link: Link, error: Exception) -> bool:
        """Note that the host refused one more session. Whether those that are open on this connection show that it
        has to do with their number; else the connection is of no use and is dropped."""
        if isinstance(error, asyncssh.ChannelOpenError) and link.alive and link.sessions > 0:
            link.limit = min(link.limit, link.sessions)
            return True
        self.drop(link)
        return False

    def drop(self, link: Link) -> None:
        """Use this connection no more."""
        self._links = [other for other in self._links if other is not link]
        link.connection.close()

    async def close(self) -> None:
        """Close all connections, whatever runs on them."""
        self._closed = True
        self._changed.set()
        await self._attempt.cancel()
        links, self._links = self._links, []
        for link in links:
            link.connection.abort()
        for link in links:
            await link.connection.wait_closed()

    async def _add(self) -> None:
        self._links.append(Link(await self._dial()))

    async def _change(self, seconds: float) -> None:
        self._waiting += 1
        try:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), seconds)
        finally:
            self._waiting -= 1
