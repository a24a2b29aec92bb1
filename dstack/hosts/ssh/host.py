"""Runs commands on a machine over SSH."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncssh
from anyio import move_on_after
from asyncssh import constants

from dstack.commands.host import TerminalSize
from dstack.errors import HostUnreachableError
from dstack.hosts.channel import CTRL_D, background
from dstack.hosts.channel_host import ChannelHost
from dstack.hosts.shell import LOGIN_COMMAND
from dstack.hosts.ssh.dial import Dialer
from dstack.hosts.ssh.failures import broken, host_error, no_terminal
from dstack.hosts.ssh.links import Link, Links
from dstack.model.runner.runner import Address

_GRACE = 2.0
"""Seconds for a command to end after its stdin was closed, and again after each signal."""

_TERM = "xterm-256color"
_RAW = (
    *(constants.PTY_ICRNL, constants.PTY_INLCR, constants.PTY_IGNCR, constants.PTY_ISTRIP, constants.PTY_IXON),
    *(constants.PTY_ISIG, constants.PTY_ICANON, constants.PTY_IEXTEN, constants.PTY_ECHO, constants.PTY_OPOST),
)
"""Modes that are off in a new terminal, so that the script passes it unchanged."""

_ALL = 1 << 30
"""More than ever is buffered. Reading less makes asyncssh ask for a full window (2 MiB) after each read, so that a slow
reader's memory fills with the whole output; reading everything bounds it to two windows."""

_TRIES = 3

Process = asyncssh.SSHClientProcess[bytes]


class SshHost(ChannelHost):
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
        super().__init__(str(address), str(address))
        self._address = address
        used = dialer or Dialer()
        self._own_dialer = None if dialer else used
        self._links = Links(lambda: used.dial(address, host_key, name), patience)
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def answered(self) -> float | None:
        return self._links.answered

    @property
    def silent(self) -> bool:
        return self._links.silent

    async def close(self) -> None:
        """Close the connections. Running and later commands raise HostUnreachableError."""
        await self._links.close()
        if self._own_dialer is not None:
            await self._own_dialer.close()
        if self._ending:
            await asyncio.wait(tuple(self._ending))

    @asynccontextmanager
    async def session(self, *, stream: bool, terminal: TerminalSize | None = None) -> AsyncIterator[SshChannel]:
        link, opened = await self._opened(stream, terminal)
        channel = SshChannel(opened.result(), link, self._address, terminal=terminal is not None)
        try:
            yield channel
        finally:
            if channel.over:
                self._links.give_back(link, stream)
            else:
                self._aside(self._finish(opened, link, stream))

    async def _opened(self, stream: bool, terminal: TerminalSize | None) -> tuple[Link, asyncio.Future[Process]]:
        """Open a session. Until it is open the host has seen no script, so retrying is safe."""
        failures = 0
        while True:
            link = await self._links.take(stream)
            opening = asyncio.ensure_future(_create(link.connection, terminal))
            try:
                await asyncio.wait({opening})
                opening.result()
                return link, opening
            except asyncio.CancelledError:
                # asyncssh would forget a session that sshd is about to open, and sshd would count it forever
                self._aside(self._finish(opening, link, stream))
                raise
            except (asyncssh.Error, OSError) as error:
                self._links.give_back(link, stream)
                if not no_terminal(error) and self._links.lower_limit(link, error):
                    continue
                failures += 1
                if failures == _TRIES or no_terminal(error):
                    raise host_error(error, self._address) from error

    async def _finish(self, opening: asyncio.Future[Process], link: Link, stream: bool) -> None:
        """Free a session whose caller has left, once its command has ended; a stream's may first end by itself."""
        try:
            with suppress(asyncssh.Error, OSError):  # it was not opened, or the connection broke
                process = await opening
                with suppress(OSError), move_on_after(_GRACE):  # OSError: it has ended
                    if stream:
                        process.stdin.write_eof()
                        await process.wait_closed()
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


async def _create(connection: asyncssh.SSHClientConnection, terminal: TerminalSize | None) -> Process:
    if terminal is None:
        return await connection.create_process(LOGIN_COMMAND)
    return await connection.create_process(
        LOGIN_COMMAND,
        request_pty=True,
        term_type=_TERM,
        term_size=(terminal.columns, terminal.rows),
        term_modes=dict.fromkeys(_RAW, 0),
    )


class SshChannel:
    """One session of a connection. `over` is True once the command has ended and its status was read."""

    def __init__(self, process: Process, link: Link, address: Address, *, terminal: bool) -> None:
        self._process = process
        self._link = link
        self._address = address
        self._terminal = terminal
        self.over = False

    async def write(self, data: bytes) -> None:
        try:
            self._process.stdin.write(data)
            await self._process.stdin.drain()
        except (OSError, asyncssh.Error) as error:
            raise BrokenPipeError from error  # the reader learns whether the command or the connection ended

    def write_eof(self) -> None:
        if self._terminal:
            self._process.stdin.write(CTRL_D)
        else:
            self._process.stdin.write_eof()

    async def read(self) -> bytes:
        return await self._read(self._process.stdout)

    async def read_errors(self) -> bytes:
        return b"" if self._terminal else await self._read(self._process.stderr)

    async def status(self) -> int:
        await self._process.wait_closed()
        self.over = True
        if self._process.exit_signal is not None:
            return 128 + int(getattr(signal, f"SIG{self._process.exit_signal[0]}", 127))
        if self._process.exit_status is not None:
            return self._process.exit_status
        raise broken(self._address)

    def failure(self) -> HostUnreachableError | None:
        ended = self._process.exit_status is not None or self._process.exit_signal is not None
        return None if ended or self._link.alive else broken(self._address)

    def resize(self, columns: int, rows: int) -> None:
        self._process.change_terminal_size(columns, rows)

    def signal(self, name: str) -> None:
        self._process.send_signal(name)

    def end(self) -> None:
        self._process.close()

    async def kill(self) -> None:
        # sshd reports the end after the output, which nobody else may be reading
        async with background(_drain(self.read)), background(_drain(self.read_errors)):
            for name in ("HUP" if self._terminal else "TERM", "KILL"):
                with suppress(OSError, HostUnreachableError), move_on_after(_GRACE):
                    self.signal(name)
                    await self.status()
                    return

    async def _read(self, reader: asyncssh.SSHReader[bytes]) -> bytes:
        try:
            return await reader.read(_ALL)
        except (OSError, asyncssh.Error) as error:
            raise broken(self._address, error) from error


async def _drain(read: Callable[[], Awaitable[bytes]]) -> None:
    while await read():
        pass
