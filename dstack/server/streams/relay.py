"""Passes bytes between a client and a program in a container, until one of them ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from anyio import move_on_after

from dstack.errors import DstackError
from dstack.executors.entered import Entered
from dstack.model.api import wire
from dstack.model.api.streams import PING_SECONDS, FrameKind, FrameReader, StreamEnd, frame, frames, size_of
from dstack.server.border.upgrade import Upgraded
from dstack.server.endpoints import problem_of

FIRST_SECONDS = 30.0
"""Seconds that a client has to send its first frame."""


class Relay:
    """Nothing is kept: a program whose output the client does not read has to wait, and so has a client whose input the
    program does not read. `passed` says whether the program has printed anything."""

    def __init__(self, client: Upgraded, entered: Entered) -> None:
        self.client = client
        self.entered = entered
        self.frames = FrameReader()
        self.passed = False

    async def run(self) -> int | None:
        """Return the program's exit status; None if the client left before. Raises HostUnreachableError if the
        connection to the host breaks."""
        first = None
        with move_on_after(FIRST_SECONDS):
            first = await self.client.receive()
        if not first:
            return None
        outward = asyncio.ensure_future(self.outward())
        others = [asyncio.ensure_future(work) for work in (self.inward(first), self.client.gone.wait(), self.ping())]
        try:
            await asyncio.wait({outward, *others}, return_when=asyncio.FIRST_COMPLETED)
            if outward.done():
                return outward.result()
            for other in others:
                if other.done():
                    other.result()
            return None
        except (ConnectionError, ValueError):  # the client left, or does not speak the protocol
            return None
        finally:
            await cancelled([outward, *others])

    async def inward(self, data: bytes) -> None:
        """Pass on what the client sends, until it leaves."""
        while data:
            for kind, payload in self.frames.feed(data):
                await self.take(kind, payload)
            data = await self.client.receive()

    async def take(self, kind: FrameKind, payload: bytes) -> None:
        channel = self.entered.channel
        if kind is FrameKind.DATA:
            try:
                await channel.write(payload)
            except BrokenPipeError:  # it stopped reading, which is its right
                return
        elif kind is FrameKind.END:
            channel.write_eof()
        elif kind is FrameKind.SIZE:
            channel.resize(*size_of(payload))

    async def outward(self) -> int:
        """Pass on what the program prints, until it ends."""
        await both(
            self.pump(self.entered.output, FrameKind.DATA), self.pump(self.entered.channel.stderr, FrameKind.ERRORS)
        )
        return await self.entered.channel.wait()

    async def pump(self, output: AsyncIterator[bytes], kind: FrameKind) -> None:
        async for piece in output:
            self.passed = True
            for each in frames(kind, piece):
                await self.client.send(each)

    async def ping(self) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            await self.client.send(frame(FrameKind.PING))

    async def say_end(self, exit_code: int, error: DstackError | None = None) -> None:
        """Tell the client how it ended."""
        end = StreamEnd(exit_code=exit_code, problem=problem_of(error)[0] if error else None)
        try:
            await self.client.send(frame(FrameKind.EXIT, wire.encode(end)))
        except ConnectionError:  # nobody is left to be told
            return


async def both(*works: Coroutine[Any, Any, None]) -> None:
    """Do all of the works. The first error ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancelled(tasks)


async def cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """End the tasks, whose errors are of no interest any longer."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
