"""This machine, without SSH."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE as PIPED
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

from dstack.commands.command import Command, Result
from dstack.errors import HostUnreachableError
from dstack.hosts.channel import PIECE, complete, follow, within
from dstack.hosts.shell import START

T = TypeVar("T")

_PLACE = "local"
_GRACE = 2.0
"""Seconds for a command to end after its stdin was closed, and again after SIGTERM."""

_PASSED = {"HOME", "USER", "LOGNAME", "SHELL", "PATH", "TMPDIR", "XDG_RUNTIME_DIR"}
_PASSED_PREFIXES = ("DOCKER_", "CONTAINER_", "CONTAINERS_")


class LocalHost:
    """Runs commands on this machine as SshHost does on others: in the home folder, in a session of their own, and
    with only those environment variables of the server that identify the user and configure Docker."""

    def __init__(self) -> None:
        self._running: set[LocalChannel] = set()

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Run the command to its end and return its output. `timeout` in seconds."""
        return await within(timeout, self._run(command), f"{command.name} on this machine")

    async def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        """Run the command and yield its stdout as it arrives."""
        async with self._started(gently=True) as channel, aclosing(follow(channel, command, _PLACE)) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """End all running commands."""
        for channel in tuple(self._running):
            channel.lost = True
            await channel.finish(gently=False)

    async def _run(self, command: Command[T]) -> Result:
        async with self._started(gently=False) as channel:
            return await complete(channel, command, _PLACE)

    @asynccontextmanager
    async def _started(self, *, gently: bool) -> AsyncIterator[LocalChannel]:
        channel = await LocalChannel.start()
        self._running.add(channel)
        try:
            yield channel
        finally:
            self._running.discard(channel)
            await channel.finish(gently=gently)


class LocalChannel:
    """One process group and its pipes. `lost` is set when the host was closed while it ran."""

    def __init__(self, transport: asyncio.SubprocessTransport, process: Process) -> None:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        self._transport, self._process = transport, process
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr
        self.lost = False

    @classmethod
    async def start(cls) -> LocalChannel:
        """Start the sh that reads the bootstrap from its stdin."""
        loop = asyncio.get_running_loop()
        home = Path.home()
        try:
            transport, protocol = await loop.subprocess_exec(
                lambda: SubprocessStreamProtocol(limit=PIECE, loop=loop),
                "/bin/sh",
                "-c",
                START,
                stdin=PIPED,
                stdout=PIPED,
                stderr=PIPED,
                cwd=home if home.is_dir() else "/",
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise HostUnreachableError(f"this machine can't start a process: {error}") from error
        return cls(transport, Process(transport, protocol, loop))

    async def write(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            await self._stdin.drain()
        except ConnectionError as error:
            raise BrokenPipeError from error

    def write_eof(self) -> None:
        self._stdin.close()

    async def read(self) -> bytes:
        return await self._stdout.read(PIECE)

    async def read_errors(self) -> bytes:
        return await self._stderr.read(PIECE)

    async def status(self) -> int:
        code = await self._process.wait()
        if self.lost:
            raise HostUnreachableError("the command was ended because its host was closed")
        return 128 - code if code < 0 else code

    def end(self) -> None:
        self._signal(signal.SIGTERM)

    async def finish(self, *, gently: bool) -> None:
        """End the command: with `gently`, close stdin and give it time to end by itself; then SIGTERM, then SIGKILL."""
        try:
            self._stdin.close()
            if not (gently and await self._over()):
                self._signal(signal.SIGTERM)
                await self._over()
        finally:
            self._signal(signal.SIGKILL)
            self._transport.close()
            await self._over()

    async def _over(self) -> bool:
        if self._process.returncode is None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._process.wait(), _GRACE)
        return self._process.returncode is not None

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


def _environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k in _PASSED or k.startswith(_PASSED_PREFIXES)}
