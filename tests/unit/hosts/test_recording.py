from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dstack.commands.command import Command, Result, Stdin
from dstack.commands.host import ask
from dstack.errors import CommandError, HostUnreachableError
from dstack.hosts.recording import RecordingHost, Reply

REPLIES: dict[str, Reply] = {
    "text": "words",
    "bytes": b"\0",
    "result": Result(3, b"out", b"err"),
    "lost": HostUnreachableError("gone"),
}


def reply(command: Command[Any]) -> Reply:
    return REPLIES[command.name]


def named(name: str, stdin: Stdin = b"") -> Command[bytes]:
    return Command(name, f"echo {name}", lambda result: result.stdout, stdin)


async def collected(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def test_it_answers_each_command_and_records_it() -> None:
    host = RecordingHost(reply)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def scene() -> None:
        assert await ask(host, named("text", b"in")) == b"words"
        assert await ask(host, named("bytes", pieces)) == b"\0"
        assert await host.run(named("result")) == Result(3, b"out", b"err")
        with pytest.raises(HostUnreachableError, match="gone"):
            await host.run(named("lost"))

    asyncio.run(scene())

    assert [command.name for command in host.commands] == ["text", "bytes", "result", "lost"]
    assert host.inputs == [b"in", b"ab", b"", b""]


def test_streams_end_as_those_of_other_hosts_do() -> None:
    host = RecordingHost(reply)

    assert asyncio.run(collected(host.stream(named("text")))) == b"words"
    with pytest.raises(CommandError, match="result failed with exit status 3: err"):
        asyncio.run(collected(host.stream(named("result"))))
