"""Runs commands on a machine over SSH."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import asyncssh
from asyncssh import constants

from dstack.commands.command import Command, Result
from dstack.commands.host import TerminalSize
from dstack.errors import HostError, HostUnreachableError
from dstack.hosts.channel import CTRL_D, background, complete, follow, within
from dstack.hosts.program import Program, begin
from dstack.hosts.shell import LOGIN_COMMAND
from dstack.hosts.ssh.dial import Dialer
from dstack.hosts.ssh.failures import broken, host_error
from dstack.hosts.ssh.links import Link, Links
from dstack.model.runner.runner import Address

T = TypeVar("T")

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

    async def open(self, command: Command[T], *, terminal: TerminalSize | None = None) -> Program:
        """Start the command's script for a caller that writes and reads, and return once it runs."""
        session = self._session(stream=True, terminal=terminal)
        return await begin(session, command.script, str(self._address), terminal=terminal is not None)

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
    async def _session(self, *, stream: bool, terminal: TerminalSize | None = None) -> AsyncIterator[SshChannel]:
        link, process = await self._opened(stream, terminal)
        channel = SshChannel(process, link, self._address, terminal=terminal is not None)
        try:
            yield channel
        finally:
            if channel.over:
                self._links.give_back(link, stream)
            else:
                self._aside(self._finish(process, link, stream))

    async def _opened(
        self, stream: bool, terminal: TerminalSize | None
    ) -> tuple[Link, asyncssh.SSHClientProcess[bytes]]:
        """Open a session. Until it is open the host has seen no script, so retrying is safe."""
        failures = 0
        while True:
            link = await self._links.take(stream)
            opening = asyncio.ensure_future(_create(link.connection, terminal))
            try:
                await asyncio.wait({opening})
                return link, opening.result()
            except asyncio.CancelledError:
                # asyncssh would forget a session that sshd is about to open, and sshd would count it forever
                self._aside(self._abandon(opening, link, stream))
                raise
            except (asyncssh.Error, OSError) as error:
                self._links.give_back(link, stream)
                if isinstance(error, asyncssh.ChannelOpenError) and error.code == constants.OPEN_REQUEST_PTY_FAILED:
                    raise _no_terminal(self._address) from error
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


async def _create(
    connection: asyncssh.SSHClientConnection, terminal: TerminalSize | None
) -> asyncssh.SSHClientProcess[bytes]:
    if terminal is None:
        return await connection.create_process(LOGIN_COMMAND)
    return await connection.create_process(
        LOGIN_COMMAND,
        request_pty=True,
        term_type=_TERM,
        term_size=(terminal.columns, terminal.rows),
        term_modes=dict.fromkeys(_RAW, 0),
    )


def _no_terminal(address: Address) -> HostError:
    error = HostError(
        f"{address}: the SSH server refuses to create a terminal", hint="set PermitTTY yes in sshd_config"
    )
    error.sent = False
    return error


class SshChannel:
    """One session of a connection. `over` is True once the command has ended and its status was read."""

    def __init__(
        self, process: asyncssh.SSHClientProcess[bytes], link: Link, address: Address, *, terminal: bool
    ) -> None:
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
        return await self._read(self._process.stderr)

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
                with suppress(OSError, HostUnreachableError, asyncio.TimeoutError):
                    self.signal(name)
                    await asyncio.wait_for(self.status(), _GRACE)
                    return

    async def _read(self, reader: asyncssh.SSHReader[bytes]) -> bytes:
        try:
            return await reader.read(_ALL)
        except (OSError, asyncssh.Error) as error:
            raise broken(self._address, error) from error


async def _drain(read: Callable[[], Awaitable[bytes]]) -> None:
    while await read():
        pass
