"""Runs a program over a channel while its caller writes and reads, the same way for every kind of host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from types import TracebackType

from dstack.hosts.channel import RawChannel, not_begun, write_pieces
from dstack.hosts.shell import AfterMarker, new_marker, wrap


async def begin(
    session: AbstractAsyncContextManager[RawChannel], script: str, place: str, *, terminal: bool
) -> Program:
    """Enter the session and start the script. Return once it runs. `place` names the host in messages."""
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(session)
        program = Program(raw, terminal=terminal)
        await program.start(script, place)
        program.session = stack.pop_all()
        return program


class Program:
    """A Channel over a raw one. `session` is left when the program is closed."""

    def __init__(self, raw: RawChannel, *, terminal: bool) -> None:
        self.session = AsyncExitStack()
        self._raw = raw
        self._marker = new_marker()
        self._terminal = terminal
        self._status: int | None = None
        self._stdout = _Output(raw, raw.read, AfterMarker(self._marker, terminal=terminal))
        self._stderr = _Output(raw, _nothing if terminal else raw.read_errors, AfterMarker(self._marker))

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        return self._stdout

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        return self._stderr

    async def start(self, script: str, place: str) -> None:
        """Send the script and wait for its marker. HostError if the login shell did not start it."""
        with suppress(BrokenPipeError):  # the output says why
            await write_pieces(self._raw, wrap(script, self._marker, terminal=self._terminal))
        if not await self._stdout.begins():
            await self._stderr.begins()
            noise = self._stdout.marker.noise + self._stderr.marker.noise
            raise not_begun(place, await self._raw.status(), noise)

    async def write(self, data: bytes) -> None:
        try:
            await write_pieces(self._raw, data)
        except BrokenPipeError as error:
            if failure := self._raw.failure():
                raise failure from error
            raise

    def write_eof(self) -> None:
        with suppress(OSError):
            self._raw.write_eof()

    def resize(self, columns: int, rows: int) -> None:
        if self._terminal:
            with suppress(OSError):
                self._raw.resize(columns, rows)

    def signal(self, name: str) -> None:
        with suppress(OSError):
            self._raw.signal(name)

    async def wait(self) -> int:
        if self._status is None:
            self._status = await self._raw.status()
        return self._status

    async def close(self) -> None:
        try:
            if self._status is None:
                await self._raw.kill()
        finally:
            await self.session.aclose()

    async def __aenter__(self) -> Program:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class _Output:
    """What a program prints after its marker. A class and not a generator: cancelling a read must not end it."""

    def __init__(self, raw: RawChannel, read: Callable[[], Awaitable[bytes]], marker: AfterMarker) -> None:
        self.marker = marker
        self._raw = raw
        self._read = read
        self._early = b""

    async def begins(self) -> bool:
        """Read up to the marker. Return whether it came."""
        while not self.marker.found and (data := await self._read()):
            self._early = self.marker.feed(data)
        return self.marker.found

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if piece := self._early:
            self._early = b""
            return piece
        while data := await self._read():
            if piece := self.marker.feed(data):
                return piece
        if failure := self._raw.failure():
            raise failure
        raise StopAsyncIteration


async def _nothing() -> bytes:
    return b""
