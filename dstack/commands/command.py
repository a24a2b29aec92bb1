"""A command is data: the script to run on a host, what it gets on stdin, and the parser of its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from dstack.errors import CommandError

T = TypeVar("T")

Stdin = bytes | Callable[[], AsyncIterator[bytes]]
"""Bytes, or a function that opens a stream of them: it is called once a try."""


@dataclass(frozen=True)
class Result:
    """What a command left: its exit status and all that it printed."""

    exit_status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Command(Generic[T]):
    """A POSIX sh script with the parser of its answer, as one unit.

    `name` says in a word or two what it does, for messages. `parse` gets the result whatever its exit status and
    raises CommandError for one that it can't accept. `secret` holds strings that no message may show.
    """

    name: str
    script: str
    parse: Callable[[Result], T]
    stdin: Stdin = b""
    secret: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = self.script
        for value in self.secret:
            shown = shown.replace(value, "***")
        return shown


def succeeded(name: str, result: Result) -> None:
    """Raise CommandError unless the exit status is 0."""
    if result.exit_status != 0:
        raise CommandError(name, result.exit_status, result.stderr.decode(errors="replace"))
