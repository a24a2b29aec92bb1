"""The whole HTTP application on a real port, without an engine that runs: browsers see what a test wrote."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from tests.unit.server.world import World

T = TypeVar("T")
SECONDS = 60.0


class Served:
    """A World that is served from a thread of its own, which alone may touch it: `do` runs a function there."""

    def __init__(self, folder: Path, base: str = "") -> None:
        self.folder = folder
        self.base = base
        self.ready: Future[tuple[World, int, asyncio.AbstractEventLoop]] = Future()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.serve()))
        self.thread.start()
        self.world, self.port, self.loop = self.ready.result(SECONDS)
        self.url = f"http://127.0.0.1:{self.port}{base}"

    async def serve(self) -> None:
        try:
            world = World(self.folder, self.base)
            config = uvicorn.Config(world.app, port=0, lifespan="off", log_level="error", timeout_graceful_shutdown=1)
            self.server = uvicorn.Server(config)
            task = asyncio.create_task(self.server._serve())
            while not self.server.started:
                await asyncio.sleep(0.01)
        except BaseException as error:
            self.ready.set_exception(error)
            raise
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.ready.set_result((world, port, asyncio.get_running_loop()))
        await task
        world.store.close()

    def do(self, act: Callable[[World], T]) -> T:
        """Run a function on the thread that serves."""

        async def doing() -> T:
            return act(self.world)

        return asyncio.run_coroutine_threadsafe(doing(), self.loop).result(SECONDS)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@contextmanager
def served(folder: Path, **given: Any) -> Iterator[Served]:
    """Serve a new World in a folder."""
    made = Served(folder, **given)
    try:
        yield made
    finally:
        made.close()
