"""This machine, without SSH."""

from __future__ import annotations

import asyncio
import os
from asyncio.subprocess import PIPE as PIPED
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGHUP, SIGKILL, SIGTERM, Signals

from anyio import move_on_after

from dstack.commands.host import TerminalSize
from dstack.errors import HostUnreachableError
from dstack.hosts.channel import CTRL_D, PIECE
from dstack.hosts.channel_host import ChannelHost
from dstack.hosts.pty import OPEN, Pty
from dstack.hosts.shell import START

_GRACE = 2.0
"""Seconds for a command to end after its stdin was closed, and again after a signal."""

_PASSED = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "TMPDIR", "XDG_RUNTIME_DIR"}
_PASSED_PREFIXES = ("DOCKER_", "CONTAINER_", "CONTAINERS_")

Started = tuple[asyncio.SubprocessTransport, Process]


class LocalHost(ChannelHost):
    """Runs commands on this machine as SshHost does on others: in the home folder, in a session of their own, and
    with only those environment variables of the server that identify the user and configure Docker."""

    def __init__(self) -> None:
        super().__init__("local", "this machine")
        self._running: set[LocalChannel] = set()

    async def close(self) -> None:
        """End all running commands."""
        for channel in tuple(self._running):
            channel.lost = True
            await channel.finish(gently=False)

    @asynccontextmanager
    async def session(self, *, stream: bool, terminal: TerminalSize | None = None) -> AsyncIterator[LocalChannel]:
        channel = await (LocalChannel.start() if terminal is None else LocalTerminal.create(terminal))
        self._running.add(channel)
        try:
            yield channel
        finally:
            self._running.discard(channel)
            await channel.finish(gently=stream)


class LocalChannel:
    """One process group and its streams. `lost` is set when the host was closed while it ran."""

    def __init__(self, started: Started, stdin: asyncio.StreamWriter, stdout: asyncio.StreamReader) -> None:
        self._transport, self._process = started
        self._stdin, self._stdout = stdin, stdout
        self.lost = False

    @classmethod
    async def start(cls) -> LocalChannel:
        """Start the sh that reads the bootstrap from its stdin."""
        transport, process = await _start(START, stdin=PIPED, stdout=PIPED, stderr=PIPED)
        assert process.stdin
        assert process.stdout
        return cls((transport, process), process.stdin, process.stdout)

    async def write(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except OSError as error:
            raise BrokenPipeError from error

    def write_eof(self) -> None:
        self._stdin.close()

    async def read(self) -> bytes:
        return await self._stdout.read(PIECE)

    async def read_errors(self) -> bytes:
        assert self._process.stderr
        return await self._process.stderr.read(PIECE)

    async def status(self) -> int:
        code = await self._process.wait()
        if failure := self.failure():
            raise failure
        return 128 - code if code < 0 else code

    def failure(self) -> HostUnreachableError | None:
        return HostUnreachableError("the command was ended because its host was closed") if self.lost else None

    def resize(self, columns: int, rows: int) -> None:
        """There is no terminal."""

    def signal(self, name: str) -> None:
        self._signal(Signals[f"SIG{name}"])

    def end(self) -> None:
        self._signal(SIGTERM)

    async def kill(self) -> None:
        try:
            self.end()
            await self._over()
        finally:
            self._signal(SIGKILL)
            self._transport.close()
            await self._over()

    async def finish(self, *, gently: bool) -> None:
        """Close stdin and end the command; with `gently`, give it time to end by itself first."""
        try:
            self._stdin.close()
            if gently:
                await self._over()
        finally:
            await self.kill()

    async def _over(self) -> None:
        with move_on_after(_GRACE):
            await self._process.wait()

    def _signal(self, number: Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class LocalTerminal(LocalChannel):
    """One process group in a terminal of its own."""

    def __init__(self, started: Started, pty: Pty) -> None:
        super().__init__(started, pty.writer, pty.reader)
        self._pty = pty

    @classmethod
    async def create(cls, size: TerminalSize) -> LocalTerminal:
        """Start the sh in a new terminal."""
        with Pty(size) as pty:
            started = await _start(OPEN + START, pty.path, stdin=pty.user, stdout=pty.user, stderr=pty.user)
            await pty.connect(PIECE)
        return cls(started, pty)

    def write_eof(self) -> None:
        self._stdin.write(CTRL_D)

    async def read_errors(self) -> bytes:
        return b""

    def resize(self, columns: int, rows: int) -> None:
        self._pty.resize(columns, rows)

    def end(self) -> None:
        self._signal(SIGHUP)

    async def finish(self, *, gently: bool) -> None:
        try:
            await self.kill()
        finally:
            self._pty.close()


async def _start(script: str, *arguments: str, stdin: int, stdout: int, stderr: int) -> Started:
    """Start a sh with the script as the leader of a new session. `arguments` are $0 and so on."""
    loop = asyncio.get_running_loop()
    home = Path.home()
    try:
        transport, protocol = await loop.subprocess_exec(
            lambda: SubprocessStreamProtocol(limit=PIECE, loop=loop),
            *("/bin/sh", "-c", script, *arguments),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=home if home.is_dir() else "/",
            env={k: v for k, v in os.environ.items() if k in _PASSED or k.startswith(_PASSED_PREFIXES)},
            start_new_session=True,
        )
    except OSError as error:
        raise HostUnreachableError(f"this machine can't start a process: {error}") from error
    return transport, Process(transport, protocol, loop)
