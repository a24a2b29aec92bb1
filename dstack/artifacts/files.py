"""What the stores share: threads for files, and the steps that make a change on disk safe."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from dstack.errors import DiskFullError, StorageUnavailableError, server_trouble
from dstack.model.job.manifest import shown
from dstack.model.job.reasons import ReasonCode
from dstack.plumbing.disk import sync

T = TypeVar("T")
P = ParamSpec("P")

BLOCK = 1 << 20


async def to_its_end(work: Callable[[], T]) -> T:
    """Do the work in a thread. When cancelled, wait until the thread has finished, so that nothing runs on unseen."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


def in_thread(work: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a function asynchronous, see `to_its_end`."""

    @functools.wraps(work)
    async def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return await to_its_end(functools.partial(work, *args, **kwargs))

    return run


async def pieces(iterator: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what the iterator yields. A thread makes each piece on demand; none is held in between."""
    while (piece := await to_its_end(lambda: next(iterator, None))) is not None:
        if piece:
            yield piece


async def counted(stream: AsyncIterator[bytes], left: int, tell: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    """Yield the stream, and tell after each piece how many of its `left` bytes are still to come. Closes the stream."""
    try:
        async for data in stream:
            left -= len(data)
            tell(left)
            yield data
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


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


@contextlib.contextmanager
def storing(root: Path) -> Iterator[None]:
    """Turn file system errors into StorageUnavailableError."""
    try:
        yield
    except DiskFullError as error:
        raise StorageUnavailableError(error.message, hint=error.hint, code=ReasonCode.SERVER_DISK_FULL) from error
    except OSError as error:
        full = isinstance(server_trouble(error), DiskFullError)
        raise StorageUnavailableError(
            f"artifacts can't be stored in {root}: {error.strerror}: {shown(str(error.filename))}",
            hint="free space, fix the folder's permissions, or use another folder: dstack config --storage FOLDER",
            code=ReasonCode.SERVER_DISK_FULL if full else None,
        ) from error


def read(stored: Path, offset: int) -> Iterator[bytes]:
    """Yield a file's bytes from an offset on."""
    with open(os.open(stored, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        source.seek(offset)
        while block := source.read(BLOCK):
            yield block


def replace(target: Path, new: Path, old: Path) -> None:
    """Rename the folder `new`, which is on disk, to `target`. If `target` exists, rename it to `old` first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    for folder in (target.parent, target.parent.parent):
        sync(folder)
