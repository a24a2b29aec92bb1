"""A command is data: the script to run on a host, its stdin, and how its answer is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from dstack.errors import CommandError, HostError, OtherServerError
from dstack.model.runner.host_context import OTHER_MACHINE, OTHER_SERVER
from dstack.model.text.untrusted import LONGEST, MESSAGE, clean, clean_line

T = TypeVar("T")

Stdin = bytes | Callable[[], AsyncIterator[bytes]]
"""Bytes, or a function that opens a stream of bytes. It is called once per attempt."""

ANSWER = 2**20
"""Bytes that most commands may answer."""
LISTS = 2**28
"""Bytes that a command may answer that lists files: about 600,000 of them."""


@dataclass(frozen=True)
class Result:
    """A command's exit status and output. The methods read `key=value` lines; they raise ValueError for any others. The
    values are clean, in one line and not longer than `longest` characters."""

    exit_status: int
    stdout: bytes
    stderr: bytes

    def pairs(self, longest: int = LONGEST) -> list[tuple[str, str]]:
        """Return keys and values in order."""
        pairs = []
        for line in filter(None, self.stdout.split(b"\n")):
            key, equals, value = line.partition(b"=")
            if not equals:
                raise ValueError(f"{clean(line, 200)!r}")
            pairs.append((clean_line(key), clean_line(value, longest)))
        return pairs

    def each(self, wanted: str) -> list[str]:
        """Return all values of one key, in order."""
        return [value for key, value in self.pairs() if key == wanted]

    def values(self, *wanted: str, longest: int = LONGEST) -> dict[str, str]:
        """Return the values by key. Raises ValueError if a wanted key is missing."""
        values = dict(self.pairs(longest))
        if missing := [key for key in wanted if key not in values]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return values


@dataclass(frozen=True)
class Command(Generic[T]):
    """A POSIX sh script and the reader of its answer. `name` says in a few words what it does, for messages. `read`
    gets the result of a script that succeeded, and raises ValueError or CommandError if it can't accept it. `secret`
    holds strings that messages must not show. A host that answers more than `most` bytes is not read any further; what
    is streamed has no such limit."""

    name: str
    script: str
    read: Callable[[Result], T]
    stdin: Stdin = b""
    secret: tuple[str, ...] = ()
    most: int = ANSWER

    def parse(self, result: Result) -> T:
        """Return the answer. Raises CommandError if the script failed or its answer can't be parsed, HostError if
        another machine answered."""
        try:
            if result.exit_status == OTHER_MACHINE:
                found = result.values().get("machine", "an unknown one")
                raise HostError(
                    f"a different machine answers at this address (machine id {found}); dstack changed nothing there",
                    hint="if the machine was replaced: dstack runners check",
                )
            succeeded(self.name, result)
            return self.read(result)
        except (ValueError, ArithmeticError, LookupError, RecursionError) as problem:
            raise CommandError(self.name, 0, f"the host's answer can't be parsed: {problem}") from problem

    def __str__(self) -> str:
        shown = self.script
        for value in self.secret:
            shown = shown.replace(value, "***")
        return shown


def succeeded(name: str, result: Result) -> None:
    """Raise CommandError unless the exit status is 0; OtherServerError if another server owns the folder."""
    if result.exit_status == 0:
        return
    stderr = clean(result.stderr[-MESSAGE:], MESSAGE)
    if result.exit_status == OTHER_SERVER and "owner=" in stderr:
        raise other_server(stderr.rpartition("owner=")[2].strip())
    raise CommandError(name, result.exit_status, stderr)


def other_server(where: str) -> OtherServerError:
    """Return the error for a folder that belongs to another server, which runs at `where` (machine and home)."""
    return OtherServerError(
        f"another server with this one's id uses the machine: {where or 'it does not say where it is'}. One is a copy"
        " of the other, and both must not drive the same jobs, so this server does nothing there",
        hint="if this server is the copy: dstack server identity --new; if the other one is, or is gone:"
        " dstack server identity --take-over",
    )


def done(result: Result) -> None:
    """Read nothing: for a command that only has to succeed."""
