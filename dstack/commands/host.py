"""What every host can do, and the programs that it runs while someone writes to them and reads from them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dstack.commands.command import Command, Result
from dstack.errors import CommandError, ErrorCode, HostError
from dstack.model.text.units import size_words
from dstack.model.text.untrusted import NAME, clean_line

T = TypeVar("T")


@dataclass(frozen=True)
class TerminalSize:
    """The size of a terminal in characters."""

    columns: int
    rows: int


class Channel(AbstractAsyncContextManager["Channel"], Protocol):
    """A running program. Close it when you are done: it holds one of the host's sessions until then. Without a
    terminal, every byte passes unchanged. A program whose output nobody reads has to wait, so read both outputs.
    Everything raises HostUnreachableError once the connection has broken."""

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """The program's output as it arrives; with a terminal, everything that the terminal shows."""

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """The program's errors as they arrive; nothing with a terminal."""

    async def write(self, data: bytes) -> None:
        """Send to stdin and wait until there is room for more. BrokenPipeError if the program stopped reading."""

    def write_eof(self) -> None:
        """Close stdin; with a terminal, press Ctrl-D, which ends the input at the start of a line."""

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program the terminal's new size. Does nothing without a terminal, or after the program's end."""

    def signal(self, name: str) -> None:
        """Send a signal, such as "INT" or "TERM", to the program. Does nothing after the program's end."""

    async def wait(self) -> int:
        """Wait for the program's end and return its exit status, or 128 + n for signal n."""

    async def close(self) -> None:
        """Kill the program, unless it has ended, and free the session. What it detached goes on."""


class Host(Protocol):
    """The connection to a machine. A broken connection always raises HostUnreachableError; a command's exit status
    never does. Cancelling a call closes the command's channel, but not processes that it detached.
    """

    @property
    def answered(self) -> float | None:
        """When the machine was heard last (seconds by the clock since the boot); None if it never was, or needs no
        connection."""

    @property
    def silent(self) -> bool:
        """Whether the machine owes an answer for so long that it is not merely slow, on a connection that is open."""

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Run the command to its end and return its output. HostUnreachableError after `timeout` seconds."""

    def stream(self, command: Command[T]) -> AsyncGenerator[bytes, None]:
        """Run the command and yield its stdout as it arrives. Raises CommandError at the end unless it exits with 0.
        stdin stays open until the iterator is closed, so a script sees EOF when its reader leaves."""

    async def open(self, command: Command[T], *, terminal: TerminalSize | None = None) -> Channel:
        """Start the command's script, in a terminal if a size is given, and return once it runs. The caller writes its
        stdin and reads its output; the command's own stdin and parser are not used."""

    async def close(self) -> None:
        """Close the connection. Running commands end with HostUnreachableError."""


async def ask_and_stream(host: Host, command: Command[T], end: bytes) -> tuple[T, AsyncGenerator[bytes, None]]:
    """Run the command and parse its answer, which ends with `end` if more comes behind it. Return the answer and a
    stream of the rest, which has to be closed."""
    stream = host.stream(command)
    try:
        answer, rest = await _answer(stream, command, end)
    except BaseException:
        await stream.aclose()
        raise

    async def behind() -> AsyncGenerator[bytes, None]:
        try:
            if rest:
                yield rest
            async for piece in stream:
                yield piece
        finally:
            await stream.aclose()

    return answer, behind()


async def _answer(stream: AsyncIterator[bytes], command: Command[T], end: bytes) -> tuple[T, bytes]:
    """Return the command's answer, and what was read behind it."""
    said = b""
    try:
        async for piece in stream:
            said += piece
            if end in said:
                break
            if len(said) > command.most:
                what = f"{command.name}: the host sent more than {size_words(command.most)} instead of an answer"
                raise HostError(f"{what}; the end is: {clean_line(said[-NAME:])}", code=ErrorCode.HOST_FLOOD)
    except CommandError as refused:
        return command.parse(Result(refused.exit_status, said, refused.stderr.encode())), b""
    said, _, rest = said.partition(end)
    return command.parse(Result(0, said, b"")), rest


async def ask(host: Host, command: Command[T], *, timeout: float | None = None) -> T:
    """Run the command on the host and parse its output."""
    return command.parse(await host.run(command, timeout=timeout))
