"""Runs one command over a channel, the same way for every kind of host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from dstack.commands.command import Command, Result, Stdin
from dstack.errors import CommandError, HostError, HostUnreachableError
from dstack.hosts.shell import AfterMarker, new_marker, wrap

T = TypeVar("T")

PIECE = 256 * 1024
"""Bytes read or written at once."""

CTRL_D = b"\4"
"""Ends the input in a terminal."""

_SHOWN = 64 * 1024


class RawChannel(Protocol):
    """The streams of a login shell. Reading and waiting raise HostUnreachableError after the connection broke."""

    async def write(self, data: bytes) -> None:
        """Send to stdin and wait until there is room for more. BrokenPipeError if the command stopped reading."""
        ...

    def write_eof(self) -> None:
        """Close stdin; in a terminal, press Ctrl-D."""
        ...

    async def read(self) -> bytes:
        """Return the next piece of stdout, b"" at its end."""
        ...

    async def read_errors(self) -> bytes:
        """Return the next piece of stderr, b"" at its end."""
        ...

    async def status(self) -> int:
        """Wait for the end and return the exit status, or 128 + n for signal n."""
        ...

    def failure(self) -> HostUnreachableError | None:
        """Return the error if the connection broke before the command ended."""
        ...

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal."""
        ...

    def signal(self, name: str) -> None:
        """Send the signal to the command. OSError if it has ended."""
        ...

    def end(self) -> None:
        """End the command now."""
        ...

    async def kill(self) -> None:
        """End the command, by force if need be, and wait until it has ended."""
        ...


async def complete(channel: RawChannel, command: Command[Any], place: str) -> Result:
    """Feed the command, read its output to the end, and return the result. `place` names the host in messages."""
    marker = new_marker()
    out, errors = AfterMarker(marker), AfterMarker(marker)
    async with (
        _fed(channel, wrap(command.script, marker), command.stdin, last=True),
        background(_collected(channel.read_errors, errors)) as reading,
    ):
        stdout = await _collected(channel.read, out)
        stderr = await reading
        status = await channel.status()
        if not out.found:
            raise not_begun(place, status, out.noise + errors.noise)
        return Result(status, stdout, stderr)


async def follow(channel: RawChannel, command: Command[Any], place: str) -> AsyncGenerator[bytes, None]:
    """Feed the command and yield its stdout as it arrives. stdin stays open. CommandError unless it exits with 0."""
    marker = new_marker()
    out, errors = AfterMarker(marker), AfterMarker(marker)
    async with (
        _fed(channel, wrap(command.script, marker), command.stdin, last=False),
        background(_collected(channel.read_errors, errors, _SHOWN)) as reading,
    ):
        while data := await channel.read():
            if piece := out.feed(data):
                yield piece
        stderr = await reading
        status = await channel.status()
        if not out.found:
            raise not_begun(place, status, out.noise + errors.noise)
        if status != 0:
            raise CommandError(command.name, status, stderr.decode(errors="replace"))


async def within(timeout: float | None, work: Coroutine[Any, Any, T], what: str) -> T:
    """Await the work for at most `timeout` seconds; HostUnreachableError after that."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=timeout)
        if task.done():
            return task.result()
    finally:
        await ended(task)
    raise HostUnreachableError(f"{what} did not answer in {timeout:g} seconds; it may or may not have taken effect")


@asynccontextmanager
async def background(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run the work alongside the body, and cancel it when the body ends."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        await ended(task)


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel the task and wait until it has ended. Its exception is not raised."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


def not_begun(place: str, status: int, noise: bytes) -> HostError:
    """The error for a command that ended before its script began: the login shell did not start it."""
    output = " ".join(noise.decode(errors="replace").split()) or "it printed nothing"
    return HostError(
        f"{place}: the login shell did not start the command (exit status {status}): {output}",
        hint="the account needs a login shell that runs commands, and the machine needs sh, dd and sha256sum",
    )


@asynccontextmanager
async def _fed(channel: RawChannel, payload: bytes, stdin: Stdin, *, last: bool) -> AsyncIterator[None]:
    """Feed stdin alongside the body. If its source fails, end the command and raise that error instead of the body's
    result, which would be that of a command with truncated input."""
    async with background(_feed(channel, payload, stdin, last=last)) as feeding:
        try:
            yield
        except HostError:
            _raise_failure(feeding)
            raise
        _raise_failure(feeding)


def _raise_failure(task: asyncio.Task[None]) -> None:
    if task.done():
        task.result()


async def _feed(channel: RawChannel, payload: bytes, stdin: Stdin, *, last: bool) -> None:
    try:
        if isinstance(stdin, bytes):
            await write_pieces(channel, payload + stdin)
        else:
            await write_pieces(channel, payload)
            await _pump(channel, stdin())
        if last:
            channel.write_eof()
    except BrokenPipeError:
        return  # a command need not read its stdin
    except Exception:
        channel.end()
        raise


async def _pump(channel: RawChannel, source: AsyncIterator[bytes]) -> None:
    try:
        async for data in source:
            await write_pieces(channel, data)
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()


async def write_pieces(channel: RawChannel, data: bytes) -> None:
    """Write the data piece by piece. BrokenPipeError if the command stopped reading."""
    view = memoryview(data)
    for start in range(0, len(data), PIECE):
        await channel.write(bytes(view[start : start + PIECE]))


async def _collected(read: Callable[[], Awaitable[bytes]], stream: AfterMarker, most: int | None = None) -> bytes:
    """Return all of a stream after its marker, or its last `most` bytes."""
    kept = bytearray()
    while data := await read():
        kept += stream.feed(data)
        if most is not None:
            del kept[:-most]
    return bytes(kept)
