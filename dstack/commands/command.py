"""A command is data: the script to run on a host, its stdin, and the parser of its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from dstack.errors import CommandError

T = TypeVar("T")

Stdin = bytes | Callable[[], AsyncIterator[bytes]]
"""Bytes, or a function that opens a stream of bytes. It is called once per attempt."""


@dataclass(frozen=True)
class Result:
    """A command's exit status and output."""

    exit_status: int
    stdout: bytes
    stderr: bytes


@dataclass(frozen=True)
class Command(Generic[T]):
    """A POSIX sh script and the parser of its answer.

    `name` says in a few words what it does, for messages. `parse` gets the result with any exit status, and raises
    CommandError if it can't accept it. `secret` holds strings that messages must not show.
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
