"""Runs a program over a channel while its caller writes and reads, the same way for every kind of host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from dstack.errors import ErrorCode, HostError
from dstack.hosts.channel import RawChannel, write_pieces
from dstack.hosts.shell import BANNER, AfterMarker, new_marker, wrap
from dstack.model.text.units import size_words
from dstack.model.text.untrusted import clean


class Program:
    """A Channel over a raw one. `session` is left when the program is closed. `place` names the host in messages."""

    def __init__(self, raw: RawChannel, place: str, *, terminal: bool = False) -> None:
        self.session = AsyncExitStack()
        self._raw = raw
        self._place = place
        self._marker = new_marker()
        self._terminal = terminal
        self._status: int | None = None
        self.stdout = _Output(place, raw, raw.read, AfterMarker(self._marker, terminal=terminal))
        self.stderr = _Output(place, raw, raw.read_errors, AfterMarker(self._marker))

    def payload(self, script: str) -> bytes:
        """Return the first bytes of stdin: the bootstrap line and the script."""
        return wrap(script, self._marker, terminal=self._terminal)

    async def start(self, script: str) -> None:
        """Send the script and wait for its marker. HostError if the login shell did not start it."""
        with suppress(BrokenPipeError):  # the output says why
            await write_pieces(self._raw, self.payload(script))
        if not await self.stdout.begins():
            await self.stderr.begins()
            await self.wait()

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
        if self.stdout.marker.found:
            return self._status
        noise = self.stdout.marker.noise + self.stderr.marker.noise
        output = " ".join(clean(noise).split()) or "it printed nothing"
        raise HostError(
            f"{self._place}: the login shell did not start the command (exit status {self._status}): {output}",
            hint="the account needs a login shell that runs commands, and the machine needs sh, dd and gzip",
        )

    async def close(self) -> None:
        try:
            if self._status is None:
                await self._raw.kill()
        finally:
            await self.session.aclose()

    async def __aenter__(self) -> Program:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Output:
    """What a program prints after its marker. A class and not a generator: cancelling a read must not end it."""

    def __init__(self, place: str, raw: RawChannel, read: Callable[[], Awaitable[bytes]], marker: AfterMarker) -> None:
        self.marker = marker
        self._place = place
        self._raw = raw
        self._read = read
        self._early = b""

    async def begins(self) -> bool:
        """Read up to the marker. Return whether it came."""
        while not self.marker.found and (data := await self._read()):
            self._early = self._after(data)
        return self.marker.found

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if piece := self._early:
            self._early = b""
            return piece
        while data := await self._read():
            if piece := self._after(data):
                return piece
        if failure := self._raw.failure():
            raise failure
        raise StopAsyncIteration

    def _after(self, data: bytes) -> bytes:
        """Return what comes after the marker. HostError if it does not come."""
        piece = self.marker.feed(data)
        if self.marker.lost:
            raise HostError(
                f"{self._place}: the login shell printed more than {size_words(BANNER)} before it started the command",
                hint="log in there, and look at what the shell's start-up files print",
                code=ErrorCode.HOST_FLOOD,
            )
        return piece
