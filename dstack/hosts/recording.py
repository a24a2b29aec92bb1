"""A host for tests: runs nothing, records its commands and returns prepared answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from dstack.commands.command import Command, Result, succeeded
from dstack.errors import HostError

T = TypeVar("T")

Reply = Result | bytes | str | Exception
Answer = Reply | Callable[[Command[Any]], Reply]
"""A result, only its stdout, an error to raise, or a function that returns one of these for a command."""


class RecordingHost:
    """`answers` maps names of commands to answers, or is a function that answers all. `default` answers the others;
    without it they raise HostError. `commands` holds the commands in order, and `inputs` the stdin of each.
    """

    def __init__(
        self, answers: Mapping[str, Answer] | Callable[[Command[Any]], Reply], *, default: Answer | None = None
    ) -> None:
        self._answers = answers
        self._default = default
        self.commands: list[Command[Any]] = []
        self.inputs: list[bytes] = []
        self.closed = False

    @property
    def names(self) -> list[str]:
        """The names of the commands, in order."""
        return [command.name for command in self.commands]

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Record the command and return its answer."""
        self.commands.append(command)
        self.inputs.append(await _read(command))
        reply = self._reply(command)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, str):
            reply = reply.encode()
        return Result(0, reply, b"") if isinstance(reply, bytes) else reply

    async def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        """Record the command and yield its answer's stdout."""
        result = await self.run(command)
        if result.stdout:
            yield result.stdout
        succeeded(command.name, result)

    async def close(self) -> None:
        """Record that the host was closed."""
        self.closed = True

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
