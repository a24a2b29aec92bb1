"""The streams of a login shell, the same for every kind of host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from dstack.errors import HostUnreachableError

T = TypeVar("T")

PIECE = 256 * 1024
"""Bytes read or written at once."""

CTRL_D = b"\4"
"""Ends the input in a terminal."""


class RawChannel(Protocol):
    """The streams of a login shell. Reading and waiting raise HostUnreachableError after the connection broke."""

    async def write(self, data: bytes) -> None:
        """Send to stdin and wait until there is room for more. BrokenPipeError if the command stopped reading."""

    def write_eof(self) -> None:
        """Close stdin; in a terminal, press Ctrl-D."""

    async def read(self) -> bytes:
        """Return the next piece of stdout, b"" at its end."""

    async def read_errors(self) -> bytes:
        """Return the next piece of stderr, b"" at its end. A terminal has none."""

    async def status(self) -> int:
        """Wait for the end and return the exit status, or 128 + n for signal n."""

    def failure(self) -> HostUnreachableError | None:
        """Return the error if the connection broke before the command ended."""

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal."""

    def signal(self, name: str) -> None:
        """Send the signal to the command. OSError if it has ended."""

    def end(self) -> None:
        """End the command now."""

    async def kill(self) -> None:
        """End the command, by force if need be, and wait until it has ended."""


@asynccontextmanager
async def background(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run the work alongside the body, and cancel it when the body ends. Its exception is not raised."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # marks it as retrieved


async def write_pieces(channel: RawChannel, data: bytes) -> None:
    """Write the data piece by piece. BrokenPipeError if the command stopped reading."""
    view = memoryview(data)
    for start in range(0, len(data), PIECE):
        await channel.write(bytes(view[start : start + PIECE]))
