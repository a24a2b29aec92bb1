"""Runs commands over channels, the same way for every kind of host."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TypeVar

from dstack.commands.command import Command, Result, Stdin, succeeded
from dstack.commands.host import TerminalSize
from dstack.errors import ErrorCode, HostError, HostUnreachableError
from dstack.hosts.channel import RawChannel, background, write_pieces
from dstack.hosts.program import Program
from dstack.model.text.units import size_words
from dstack.model.text.untrusted import NAME, clean_line

T = TypeVar("T")

_SHOWN = 64 * 1024
"""Bytes of a stream's stderr that are kept for its error."""


class ChannelHost(ABC):
    """A host that runs each command over a channel of its own. Messages begin with `place` or end in "on `machine`"."""

    def __init__(self, place: str, machine: str) -> None:
        self._place, self._machine = place, machine

    @property
    def answered(self) -> float | None:
        """See `Host.answered`."""
        return None

    @property
    def silent(self) -> bool:
        """See `Host.silent`."""
        return False

    @abstractmethod
    def session(self, *, stream: bool, terminal: TerminalSize | None = None) -> AbstractAsyncContextManager[RawChannel]:
        """Open a channel, and close it after the body. The command of a `stream` may then end by itself first."""

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Run the command to its end and return its output. `timeout` in seconds includes connecting."""
        async with background(self._run(command)) as task:
            await asyncio.wait({task}, timeout=timeout)
            if task.done():
                return task.result()
        what = f"{command.name} on {self._machine}"
        raise HostUnreachableError(f"{what} did not answer in {timeout:g} seconds; it may or may not have taken effect")

    async def stream(self, command: Command[T]) -> AsyncGenerator[bytes, None]:
        """Run the command and yield its stdout as it arrives. stdin stays open. CommandError unless it exits with 0."""
        async with (
            self._fed(command, stream=True) as program,
            background(_end(program.stderr, _SHOWN)) as reading,
        ):
            async for piece in program.stdout:
                yield piece
            stderr = await reading
            succeeded(command.name, Result(await program.wait(), b"", stderr))

    async def open(self, command: Command[T], *, terminal: TerminalSize | None = None) -> Program:
        """Start the command's script for a caller that writes and reads, and return once it runs."""
        async with AsyncExitStack() as stack:
            channel = await stack.enter_async_context(self.session(stream=True, terminal=terminal))
            program = Program(channel, self._place, terminal=terminal is not None)
            await program.start(command.script)
            program.session = stack.pop_all()
            return program

    async def _run(self, command: Command[T]) -> Result:
        async with (
            self._fed(command, stream=False) as program,
            background(self._answer(command, program.stdout)) as stdout,
            background(self._answer(command, program.stderr)) as stderr,
        ):
            done, _ = await asyncio.wait({stdout, stderr}, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            return Result(await program.wait(), stdout.result(), stderr.result())

    async def _answer(self, command: Command[T], output: AsyncIterator[bytes]) -> bytes:
        """Return all of the output. HostError if the command may not answer that much."""
        kept = bytearray()
        async for piece in output:
            kept += piece
            if len(kept) > command.most:
                raise HostError(
                    f"{command.name} on {self._machine}: it sent more than {size_words(command.most)}, so dstack "
                    f"stopped reading; the end is: {clean_line(bytes(kept[-NAME:]))}",
                    hint="log in there, and look for a program that prints without end, such as a wrapper of docker",
                    code=ErrorCode.HOST_FLOOD,
                )
        return bytes(kept)

    @asynccontextmanager
    async def _fed(self, command: Command[T], *, stream: bool) -> AsyncIterator[Program]:
        """Start the command and feed its stdin alongside the body. If its source fails, end the command and raise that
        error instead of the body's result, which would be that of a command with truncated input."""
        async with self.session(stream=stream) as channel:
            program = Program(channel, self._place)
            async with background(
                _feed(channel, program.payload(command.script), command.stdin, last=not stream)
            ) as feeding:
                try:
                    yield program
                except HostError:
                    if feeding.done():
                        feeding.result()
                    raise
                if feeding.done():
                    feeding.result()


async def _feed(channel: RawChannel, payload: bytes, stdin: Stdin, *, last: bool) -> None:
    try:
        if isinstance(stdin, bytes):
            await write_pieces(channel, payload + stdin)
        else:
            await write_pieces(channel, payload)
            source = stdin()
            try:
                async for data in source:
                    await write_pieces(channel, data)
            finally:
                if close := getattr(source, "aclose", None):
                    await close()
        if last:
            channel.write_eof()
    except BrokenPipeError:
        return  # a command need not read its stdin
    except Exception:
        channel.end()
        raise


async def _end(output: AsyncIterator[bytes], most: int) -> bytes:
    """Return the last bytes of the output."""
    kept = bytearray()
    async for piece in output:
        kept += piece
        del kept[:-most]
    return bytes(kept)
