"""What every host can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from dstack.commands.command import Command, Result

T = TypeVar("T")


class Host(Protocol):
    """A machine that runs commands. Transport trouble always raises HostUnreachableError; what a command exits with
    never does. Cancelling a call ends the command's channel: what it started detached goes on.
    """

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Run the command to its end and return all that it printed. `timeout` in seconds raises
        HostUnreachableError."""
        ...

    def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        """Run the command and yield its stdout as it arrives. Raises CommandError at the end unless it exits with 0.
        The command's stdin stays open until the iterator is closed: a script notices the end of its reader by EOF."""
        ...

    async def close(self) -> None:
        """Give back the connection. Running commands end with HostUnreachableError."""
        ...


async def ask(host: Host, command: Command[T], *, timeout: float | None = None) -> T:
    """Run the command on the host and parse its answer."""
    return command.parse(await host.run(command, timeout=timeout))
