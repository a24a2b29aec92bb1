"""Shares one attempt among concurrent callers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from dstack.errors import HostUnreachableError

T = TypeVar("T")


class Shared(Generic[T]):
    """Runs one attempt at a time. Everyone who asks while it is in progress gets its outcome. `latest` is the last
    outcome that was not an error."""

    def __init__(self, attempt: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.latest: T | None = None
        self._attempt = attempt
        self._task: asyncio.Task[T] | None = None

    async def result(self) -> T:
        """Return the outcome of the current attempt, or of a new one. Cancelling a caller does not end the attempt."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._attempt())
            self._task.add_done_callback(self._ended)
        task = self._task
        await asyncio.wait({task})
        if task.cancelled():
            raise HostUnreachableError("dstack closed the connection before it was established")
        return task.result()

    async def cancel(self) -> None:
        """Cancel the current attempt."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def _ended(self, task: asyncio.Task[T]) -> None:
        # retrieves the exception: all callers may have been cancelled before the attempt failed
        if not task.cancelled() and task.exception() is None:
            self.latest = task.result()
