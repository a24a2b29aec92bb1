"""A host that runs nothing: it notes what it was asked and answers what it was told to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

from dstack.commands.command import Command, Result, succeeded
from dstack.errors import HostError

T = TypeVar("T")

Reply = Result | bytes | str | Exception
Answer = Reply | Callable[[Command[Any]], Reply]
"""What a command leaves: a result, its stdout alone, an error to raise, or a function of the command that says so."""


class RecordingHost:
    """`answers` maps names of commands to what they leave, or is a function for all. `default` answers the others;
    without it they raise HostError. `commands` holds what was asked, in order, and `inputs` what each got on stdin.
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
        """Note the command and give its answer."""
        self.commands.append(command)
        self.inputs.append(await _read(command))
        reply = self._reply(command)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, str):
            reply = reply.encode()
        return Result(0, reply, b"") if isinstance(reply, bytes) else reply

    async def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        """Note the command and yield its answer's stdout."""
        result = await self.run(command)
        if result.stdout:
            yield result.stdout
        succeeded(command.name, result)

    async def close(self) -> None:
        """Note that nothing more will be asked."""
        self.closed = True

    def _reply(self, command: Command[Any]) -> Reply:
        if callable(self._answers):
            return self._answers(command)
        answer = self._answers.get(command.name, self._default)
        if answer is None:
            known = ", ".join(self._answers) or "none"
            raise HostError(f"no answer to {command.name!r} is recorded; there are answers to: {known}")
        return answer(command) if callable(answer) else answer


async def _read(command: Command[Any]) -> bytes:
    if isinstance(command.stdin, bytes):
        return command.stdin
    return b"".join([data async for data in command.stdin()])
