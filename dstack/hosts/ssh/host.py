"""Runs commands on a machine over SSH."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncssh

from dstack.commands.command import Command, Result
from dstack.hosts.channel import PIECE, complete, follow, within
from dstack.hosts.shell import LOGIN_COMMAND
from dstack.hosts.ssh.dial import Dialer
from dstack.hosts.ssh.failures import broken, host_error
from dstack.hosts.ssh.links import Link, Links
from dstack.model.runner.runner import Address

T = TypeVar("T")

_GRACE = 2.0
"""Seconds for a stream's command to end after its stdin was closed."""

_TRIES = 3


class SshHost:
    """One machine over persistent connections, opened on first use and reopened after a break.

    Only `host_key`, a public key in OpenSSH's format, is accepted. `name` is the runner's name, for messages. Hosts
    that share bastions share a `dialer`; without one the host creates its own. `patience` is how many seconds a run
    waits for a session before another connection is opened.
    """

    def __init__(
        self,
        address: Address,
        host_key: str,
        *,
        name: str = "NAME",
        dialer: Dialer | None = None,
        patience: float = 1.0,
    ) -> None:
        self._address = address
        self._own_dialer = Dialer() if dialer is None else None
        connecting = dialer or self._own_dialer
        assert connecting
        self._links = Links(lambda: connecting.dial(address, host_key, name), patience)
        self._ending: set[asyncio.Task[None]] = set()

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Run the command to its end and return its output. `timeout` in seconds includes connecting."""
        return await within(timeout, self._run(command), f"{command.name} on {self._address}")

    async def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        """Run the command and yield its stdout as it arrives."""
        async with (
            self._session(stream=True) as channel,
            aclosing(follow(channel, command, str(self._address))) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """Close the connections. Running and later commands raise HostUnreachableError."""
        await self._links.close()
        if self._own_dialer is not None:
            await self._own_dialer.close()
        if self._ending:
            await asyncio.wait(tuple(self._ending))

    async def _run(self, command: Command[T]) -> Result:
        async with self._session(stream=False) as channel:
            return await complete(channel, command, str(self._address))

    @asynccontextmanager
    async def _session(self, *, stream: bool) -> AsyncIterator[SshChannel]:
        link, process = await self._opened(stream)
        channel = SshChannel(process, self._address)
        try:
            yield channel
        finally:
            if channel.over:
                self._links.give_back(link, stream)
            else:
                self._aside(self._finish(process, link, stream))

    async def _opened(self, stream: bool) -> tuple[Link, asyncssh.SSHClientProcess[bytes]]:
        """Open a session. Until it is open the host has seen no script, so retrying is safe."""
        failures = 0
        while True:
            link = await self._links.take(stream)
            opening = asyncio.ensure_future(link.connection.create_process(LOGIN_COMMAND))
            try:
                await asyncio.wait({opening})
                return link, opening.result()
            except asyncio.CancelledError:
                # asyncssh would forget a session that sshd is about to open, and sshd would count it forever
                self._aside(self._abandon(opening, link, stream))
                raise
            except (asyncssh.Error, OSError) as error:
                self._links.give_back(link, stream)
                if self._links.lower_limit(link, error):
                    continue
                failures += 1
                if failures == _TRIES:
                    raise host_error(error, self._address) from error

    async def _abandon(
        self, opening: asyncio.Future[asyncssh.SSHClientProcess[bytes]], link: Link, stream: bool
    ) -> None:
        try:
            process = await opening
        except (asyncssh.Error, OSError):
            self._links.give_back(link, stream)
        else:
            await self._finish(process, link, stream)

    async def _finish(self, process: asyncssh.SSHClientProcess[bytes], link: Link, stream: bool) -> None:
        """End a command whose caller has left; a stream's command may first end by itself. Then free the session."""
        try:
            with suppress(OSError, asyncio.TimeoutError):  # OSError: it has ended
                if stream:
                    process.stdin.write_eof()
                    await asyncio.wait_for(process.wait_closed(), _GRACE)
            with suppress(OSError):
                process.terminate()
            process.close()
            await process.wait_closed()
        finally:
            self._links.give_back(link, stream)

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class SshChannel:
    """One session of a connection. `over` is True once the command has ended and its status was read."""

    def __init__(self, process: asyncssh.SSHClientProcess[bytes], address: Address) -> None:
        self._process = process
        self._address = address
        self.over = False

    async def write(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (OSError, asyncssh.Error) as error:
            raise BrokenPipeError from error  # the reader learns whether the command or the connection ended

    def write_eof(self) -> None:
        self._process.stdin.write_eof()

    async def read(self) -> bytes:
        return await self._read(self._process.stdout)

    async def read_errors(self) -> bytes:
        return await self._read(self._process.stderr)

    async def status(self) -> int:
        await self._process.wait_closed()
        self.over = True
        if self._process.exit_signal is not None:
            return 128 + int(getattr(signal, f"SIG{self._process.exit_signal[0]}", 127))
        if self._process.exit_status is not None:
            return self._process.exit_status
        raise broken(self._address)

    def end(self) -> None:
        self._process.close()

    async def _read(self, reader: asyncssh.SSHReader[bytes]) -> bytes:
        try:
            return await reader.read(PIECE)
        except (OSError, asyncssh.Error) as error:
            raise broken(self._address, error) from error
