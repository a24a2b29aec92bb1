"""A host for tests: runs nothing, records its commands and returns prepared answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

from dstack.commands.command import Command, Result, succeeded

T = TypeVar("T")

Reply = Result | bytes | str | Exception
"""A result, only its stdout, or an error to raise."""


class RecordingHost:
    """`reply` answers each command. `commands` holds the commands in order, `inputs` the stdin of each."""

    answered: float | None = None
    silent = False

    def __init__(self, reply: Callable[[Command[Any]], Reply]) -> None:
        self._reply = reply
        self.commands: list[Command[Any]] = []
        self.inputs: list[bytes] = []

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Record the command and return its answer."""
        stdin = command.stdin
        self.inputs.append(stdin if isinstance(stdin, bytes) else b"".join([data async for data in stdin()]))
        self.commands.append(command)
        reply = self._reply(command)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(reply, str):
            reply = reply.encode()
        return Result(0, reply, b"") if isinstance(reply, bytes) else reply

    async def stream(self, command: Command[T]) -> AsyncGenerator[bytes, None]:
        """Record the command and yield its answer's stdout."""
        result = await self.run(command)
        if result.stdout:
            yield result.stdout
        succeeded(command.name, result)
