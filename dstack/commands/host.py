"""What every host can do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol, TypeVar

from dstack.commands.command import Command, Result
from dstack.commands.duplex import Channel, TerminalSize

T = TypeVar("T")


class Host(Protocol):
    """The connection to a machine. A broken connection always raises HostUnreachableError; a command's exit status
    never does. Cancelling a call closes the command's channel, but not processes that it detached.
    """

    async def run(self, command: Command[T], *, timeout: float | None = None) -> Result:
        """Run the command to its end and return its output. HostUnreachableError after `timeout` seconds."""
        ...

    def stream(self, command: Command[T]) -> AsyncIterator[bytes]:
        """Run the command and yield its stdout as it arrives. Raises CommandError at the end unless it exits with 0.
        stdin stays open until the iterator is closed, so a script sees EOF when its reader leaves."""
        ...

    async def open(self, command: Command[T], *, terminal: TerminalSize | None = None) -> Channel:
        """Start the command's script, in a terminal if a size is given, and return once it runs. The caller writes its
        stdin and reads its output; the command's own stdin and parser are not used."""
        ...

    async def close(self) -> None:
        """Close the connection. Running commands end with HostUnreachableError."""
        ...


async def ask(host: Host, command: Command[T], *, timeout: float | None = None) -> T:
    """Run the command on the host and parse its output."""
    return command.parse(await host.run(command, timeout=timeout))
