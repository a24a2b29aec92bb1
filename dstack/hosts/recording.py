"""A host for tests: runs nothing, records its commands and returns prepared answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from dstack.commands.command import Command, Result, succeeded
from dstack.commands.host import TerminalSize
from dstack.errors import HostError

T = TypeVar("T")

Reply = Result | bytes | str | Exception
Answer = Reply | Callable[[Command[Any]], Reply]
"""A result, only its stdout, an error to raise, or a function that returns one of these for a command."""


class RecordingHost:
    """`answers` maps names of commands to answers, or is a function that answers all. `default` answers the others;
    without it they raise HostError. `commands` holds the commands in order, `inputs` the stdin of each, and `channels`
    what was opened.
    """

    def __init__(
        self, answers: Mapping[str, Answer] | Callable[[Command[Any]], Reply], *, default: Answer | None = None
    ) -> None:
        self._answers = answers
        self._default = default
        self.commands: list[Command[Any]] = []
        self.inputs: list[bytes] = []
        self.channels: list[RecordingChannel] = []
        self.closed = False

    @property
    def names(self) -> list[str]:
        """The names of the commands, in order."""
        return [command.name for command in self.commands]

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Record the command and return its answer."""
        self.inputs.append(await _read(command))
        return self._result(command)

    async def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        """Record the command and yield its answer's stdout."""
        result = await self.run(command)
        if result.stdout:
            yield result.stdout
        succeeded(command.name, result)

    async def open(self, command: Command[T], *, terminal: TerminalSize | None = None) -> RecordingChannel:
        """Record the command and return a channel that plays its answer."""
        channel = RecordingChannel(self._result(command), terminal)
        self.channels.append(channel)
        return channel

    async def close(self) -> None:
        """Record that the host was closed."""
        self.closed = True

    def _result(self, command: Command[Any]) -> Result:
        self.commands.append(command)
        reply = self._reply(command)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, str):
            reply = reply.encode()
        return Result(0, reply, b"") if isinstance(reply, bytes) else reply

    def _reply(self, command: Command[Any]) -> Reply:
        if callable(self._answers):
            return self._answers(command)
        answer = self._answers.get(command.name, self._default)
        if answer is None:
            known = ", ".join(self._answers) or "none"
            raise HostError(f"no answer to {command.name!r} was prepared; there are answers to: {known}")
        return answer(command) if callable(answer) else answer


async def _read(command: Command[Any]) -> bytes:
    if isinstance(command.stdin, bytes):
        return command.stdin
    return b"".join([data async for data in command.stdin()])


class RecordingChannel:
    """Plays a result, and records what its user does. `sizes` are those of the terminal, from the first on."""

    def __init__(self, result: Result, terminal: TerminalSize | None) -> None:
        self.stdout = _pieces(result.stdout)
        self.stderr = _pieces(result.stderr)
        self.written = b""
        self.ended = False
        self.sizes = [terminal] if terminal else []
        self.signals: list[str] = []
        self.closed = False
        self._status = result.exit_status

    async def write(self, data: bytes) -> None:
        """Record what the program is sent."""
        self.written += data

    def write_eof(self) -> None:
        """Record the end of stdin."""
        self.ended = True

    def resize(self, columns: int, rows: int) -> None:
        """Record the terminal's new size."""
        if self.sizes:
            self.sizes.append(TerminalSize(columns, rows))

    def signal(self, name: str) -> None:
        """Record the signal."""
        self.signals.append(name)

    async def wait(self) -> int:
        """Return the prepared exit status."""
        return self._status

    async def close(self) -> None:
        """Record that the channel was closed."""
        self.closed = True

    async def __aenter__(self) -> RecordingChannel:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    if data:
        yield data
