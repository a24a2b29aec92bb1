"""File I/O away from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

from dstack.artifacts.contents import BLOCK

T = TypeVar("T")


async def to_its_end(work: Callable[[], T]) -> T:
    """Do the work in a thread. When cancelled, wait for its end first: nothing goes on behind the caller's back."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def pieces(iterator: Iterator[bytes]) -> AsyncIterator[bytes]:
    """What the iterator yields. Each piece is made in a thread, when it is asked for: no thread is held meanwhile."""
    while (piece := await to_its_end(lambda: next(iterator, None))) is not None:
        if piece:
            yield piece


async def gathered(stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The stream in pieces of a MiB and more: a thread is not worth its start for less. Closes the stream."""
    pending = bytearray()
    try:
        async for data in stream:
            pending += data
            if len(pending) >= BLOCK:
                yield bytes(pending)
                pending.clear()
        if pending:
            yield bytes(pending)
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()
