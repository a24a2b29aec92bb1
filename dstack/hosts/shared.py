"""One attempt for many callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from dstack.errors import HostUnreachableError

T = TypeVar("T")


class Shared(Generic[T]):
    """One attempt at a time, whose outcome all get that ask while it is under way."""

    def __init__(self) -> None:
        self._task: asyncio.Task[T] | None = None

    async def result(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of the attempt that is under way, or of a new one. It goes on when a caller is cancelled."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(attempt())
            self._task.add_done_callback(_seen)
        task = self._task
        await asyncio.wait({task})
        if task.cancelled():
            raise HostUnreachableError("the connection was closed here before it was there")
        return task.result()

    async def cancel(self) -> None:
        """Give up the attempt that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})


def _seen(task: asyncio.Task[Any]) -> None:
    """An attempt may fail when all who asked have gone: that is no error of the program's."""
    if not task.cancelled():
        task.exception()
