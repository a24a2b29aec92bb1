from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dstack.commands.command import Command, Result, Stdin
from dstack.commands.host import TerminalSize, ask
from dstack.errors import CommandError, HostError, HostUnreachableError
from dstack.hosts.recording import RecordingHost


def named(name: str, stdin: Stdin = b"") -> Command[bytes]:
    return Command(name, f"echo {name}", lambda result: result.stdout, stdin)


async def collected(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def test_it_answers_by_name_and_notes_what_it_was_asked() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    host = RecordingHost(
        {
            "text": "words",
            "bytes": b"\0",
            "result": Result(3, b"out", b"err"),
            "function": lambda command: command.script,
            "lost": HostUnreachableError("gone"),
        }
    )

    async def scene() -> None:
        assert await ask(host, named("text", b"in")) == b"words"
        assert await ask(host, named("bytes", pieces)) == b"\0"
        assert await host.run(named("result")) == Result(3, b"out", b"err")
        assert await ask(host, named("function")) == b"echo function"
        with pytest.raises(HostUnreachableError, match="gone"):
            await host.run(named("lost"))
        await host.close()

    asyncio.run(scene())
    assert host.names == ["text", "bytes", "result", "function", "lost"]
    assert host.inputs == [b"in", b"ab", b"", b"", b""]
    assert host.closed


def test_a_function_may_answer_everything() -> None:
    host = RecordingHost(lambda command: command.name.upper())

    assert asyncio.run(ask(host, named("any"))) == b"ANY"


def test_what_has_no_answer_is_an_error_unless_there_is_a_default() -> None:
    with pytest.raises(HostError, match="no answer to 'other' was prepared; there are answers to: one"):
        asyncio.run(RecordingHost({"one": ""}).run(named("other")))
    assert asyncio.run(ask(RecordingHost({}, default="fine"), named("other"))) == b"fine"


def test_streams_end_as_those_of_other_hosts_do() -> None:
    host = RecordingHost({"good": b"abc", "bad": Result(2, b"abc", b"why")})

    assert asyncio.run(collected(host.stream(named("good")))) == b"abc"
    with pytest.raises(CommandError, match="bad failed with exit status 2: why"):
        asyncio.run(collected(host.stream(named("bad"))))


def test_a_channel_plays_its_answer_and_notes_what_its_user_did() -> None:
    host = RecordingHost({"shell": Result(3, b"out", b"err"), "lost": HostUnreachableError("gone")})

    async def scene() -> None:
        async with await host.open(named("shell"), terminal=TerminalSize(80, 24)) as channel:
            assert await collected(channel.stdout) == b"out"
            assert await collected(channel.stderr) == b"err"
            await channel.write(b"exi")
            await channel.write(b"t\n")
            channel.resize(100, 30)
            channel.signal("INT")
            channel.write_eof()
            assert await channel.wait() == 3
        with pytest.raises(HostUnreachableError, match="gone"):
            await host.open(named("lost"))

    asyncio.run(scene())
    (channel,) = host.channels
    assert host.names == ["shell", "lost"]
    assert channel.written == b"exit\n"
    assert channel.sizes == [TerminalSize(80, 24), TerminalSize(100, 30)]
    assert channel.signals == ["INT"]
    assert channel.ended
    assert channel.closed
