"""The interface of a program that runs on a host while someone writes to it and reads from it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol


@dataclass(frozen=True)
class TerminalSize:
    """The size of a terminal in characters."""

    columns: int
    rows: int


class Channel(Protocol):
    """A running program. Close it when you are done: it holds one of the host's sessions until then.

    Without a terminal, every byte passes unchanged. A program whose output nobody reads has to wait, so read both
    outputs. Everything raises HostUnreachableError once the connection has broken.
    """

    @property
    def stdout(self) -> AsyncIterator[bytes]:
        """The program's output as it arrives; with a terminal, everything that the terminal shows."""
        ...

    @property
    def stderr(self) -> AsyncIterator[bytes]:
        """The program's errors as they arrive; nothing with a terminal."""
        ...

    async def write(self, data: bytes) -> None:
        """Send to stdin and wait until there is room for more. BrokenPipeError if the program stopped reading."""
        ...

    def write_eof(self) -> None:
        """Close stdin; with a terminal, press Ctrl-D, which ends the input at the start of a line."""
        ...

    def resize(self, columns: int, rows: int) -> None:
        """Tell the program the terminal's new size. Does nothing without a terminal, or after the program's end."""
        ...

    def signal(self, name: str) -> None:
        """Send a signal, such as "INT" or "TERM", to the program. Does nothing after the program's end."""
        ...

    async def wait(self) -> int:
        """Wait for the program's end and return its exit status, or 128 + n for signal n."""
        ...

    async def close(self) -> None:
        """Kill the program, unless it has ended, and free the session. What it detached goes on."""
        ...

    async def __aenter__(self) -> Channel: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
