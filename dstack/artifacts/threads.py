"""File I/O away from the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

from dstack.artifacts.folder.contents import BLOCK

T = TypeVar("T")


async def to_its_end(work: Callable[[], T]) -> T:
    """Do the work in a thread. When cancelled, wait until the thread has finished, so that nothing runs on unseen."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


async def pieces(iterator: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what the iterator yields. A thread makes each piece on demand; none is held in between."""
    while (piece := await to_its_end(lambda: next(iterator, None))) is not None:
        if piece:
            yield piece


async def gathered(stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the stream in pieces of at least 1 MiB: starting a thread is not worth it for less. Closes the stream."""
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
