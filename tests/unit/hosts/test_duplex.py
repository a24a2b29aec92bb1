"""What channels of every kind of host promise to a caller that writes and reads while the program runs."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from dstack.commands.host import Channel, Host, TerminalSize
from dstack.errors import HostError, HostUnreachableError
from dstack.hosts.ssh.host import SshHost
from tests.unit.hosts.conftest import become, play
from tests.unit.hosts.servers import Server
from tests.unit.hosts.test_every_host import MakeHost, alive, on_host, sh

__all__ = ["on_host"]

SIZE = TerminalSize(columns=100, rows=40)
PIECE = os.urandom(1_000_000)


async def whole(output: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in output])


async def until(channel: Channel, text: bytes) -> bytes:
    """Read stdout until this text."""
    seen = b""
    while text not in seen:
        try:
            seen += await anext(channel.stdout)
        except StopAsyncIteration:
            raise AssertionError(f"{text!r} never came, but {seen!r}") from None
    return seen


async def held(writing: asyncio.Task[None]) -> None:
    """Wait until a writer is blocked because nobody reads."""
    done, _ = await asyncio.wait({writing}, timeout=0.5)
    assert not done


def test_a_program_is_written_to_and_read_from_while_it_runs(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, await host.open(sh("echo begun; cat; echo end >&2; exit 7")) as channel:
            assert await until(channel, b"begun\n") == b"begun\n"
            for word in (b"one", b"\0\x03\x04\xff\r\n"):
                await channel.write(word)
                assert await until(channel, word) == word
            channel.write_eof()
            assert await whole(channel.stdout) == b""
            assert await whole(channel.stderr) == b"end\n"
            assert await channel.wait() == 7
            assert await channel.wait() == 7

    play(scene)


def test_many_megabytes_pass_both_ways_unchanged_in_little_memory(on_host: MakeHost) -> None:
    sent = hashlib.sha256()

    async def send(channel: Channel) -> None:
        for number in range(30):
            piece = PIECE[number:] + PIECE[:number]
            sent.update(piece)
            await channel.write(piece)
        channel.write_eof()

    async def scene() -> None:
        async with on_host() as host, await host.open(sh("cat")) as channel:
            tracemalloc.start()
            sending = asyncio.ensure_future(send(channel))
            got, size = hashlib.sha256(), 0
            async for piece in channel.stdout:
                got.update(piece)
                size += len(piece)
            await sending
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert size == 30_000_000
            assert got.hexdigest() == sent.hexdigest()
            assert peak < 15_000_000, peak
            assert await channel.wait() == 0

    play(scene)


def test_a_slow_reader_takes_little_memory(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, await host.open(sh("head -c 30000000 /dev/zero")) as channel:
            tracemalloc.start()
            size = 0
            async for piece in channel.stdout:
                size += len(piece)
                if size < 15_000_000:
                    await asyncio.sleep(0.01)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert size == 30_000_000
            assert peak < 15_000_000, peak

    play(scene)


def test_a_program_that_does_not_read_holds_its_writer_back(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, await host.open(sh("echo begun; read -r x; cat >/dev/null")) as channel:
            writing = asyncio.ensure_future(channel.write(PIECE * 20))
            async with await host.open(sh("sleep 1000")) as other:
                blocked = asyncio.ensure_future(other.write(PIECE * 20))
                await held(blocked)
                blocked.cancel()
                await asyncio.wait({blocked})
            await writing
            channel.write_eof()
            assert await channel.wait() == 0

    play(scene)


def test_a_program_that_stops_reading_breaks_the_pipe(on_host: MakeHost) -> None:
    async def write_on(channel: Channel) -> None:
        while True:
            await channel.write(PIECE)

    async def scene() -> None:
        async with on_host() as host, await host.open(sh("exit 3")) as channel:
            with pytest.raises(BrokenPipeError):
                await write_on(channel)
            assert await channel.wait() == 3

    play(scene)


def test_giving_up_on_a_read_loses_nothing(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, await host.open(sh("cat")) as channel:
            for word in (b"one", b"two"):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(anext(channel.stdout), 0.1)
                await channel.write(word)
                assert await until(channel, word) == word

    play(scene)


def test_a_signal_reaches_the_program(on_host: MakeHost) -> None:
    async def scene() -> None:
        script = "trap 'echo again' USR1; trap 'echo caught; exit 9' INT; echo begun; while :; do sleep 0.05; done"
        async with on_host() as host, await host.open(sh(script)) as channel:
            await until(channel, b"begun\n")
            channel.signal("USR1")
            await until(channel, b"again\n")
            channel.signal("INT")
            assert (await whole(channel.stdout)).endswith(b"caught\n")
            assert await channel.wait() == 9
            channel.signal("INT")  # does nothing any more

    play(scene)


@pytest.mark.parametrize("terminal", [None, SIZE])
@pytest.mark.parametrize("trap", ["", "trap '' TERM HUP;"])
def test_closing_kills_the_program(on_host: MakeHost, trap: str, terminal: TerminalSize | None) -> None:
    async def scene() -> None:
        async with on_host() as host:
            channel = await host.open(sh(f"{trap} echo $$; while :; do sleep 0.2; done"), terminal=terminal)
            pid = int(await until(channel, b"\n"))
            assert alive(pid)
            await channel.close()
            assert not alive(pid)
            await channel.close()

    play(scene)


def test_closing_kills_a_program_whose_output_nobody_reads(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            channel = await host.open(sh("echo $$; exec cat /dev/zero"))
            pid = int((await anext(channel.stdout)).split(b"\n")[0])
            await channel.close()
            assert not alive(pid)

    play(scene)


def test_what_a_program_detached_goes_on_after_the_close(on_host: MakeHost, tmp_path: Path) -> None:
    script = f"setsid sh -c 'echo $$ > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/pid; exec sleep 1000' "

    async def scene() -> None:
        async with on_host() as host, await host.open(sh(f"{script} >/dev/null 2>&1 </dev/null & sleep 1000")):
            await become((tmp_path / "pid").exists, "it runs")
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
        os.kill(pid, 9)

    play(scene)


def test_closing_the_host_ends_its_channels_as_unreachable(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, await host.open(sh("echo begun; sleep 1000")) as channel:
            await until(channel, b"begun\n")
            reading = asyncio.ensure_future(anext(channel.stdout))
            await host.close()
            with pytest.raises(HostUnreachableError):
                await reading
            with pytest.raises(HostUnreachableError):
                await channel.wait()

    play(scene)


# --- terminals


def test_a_terminal_has_the_size_that_was_asked_for_and_later_ones(on_host: MakeHost) -> None:
    async def scene() -> None:
        script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
        async with on_host() as host, await host.open(sh(script), terminal=SIZE) as channel:
            assert await until(channel, b"\r\n") == b"40 100\r\n"
            channel.resize(132, 50)
            assert await until(channel, b"\r\n") == b"50 132\r\n"

    play(scene)


def test_ctrl_c_in_a_terminal_ends_what_runs_in_it(on_host: MakeHost) -> None:
    async def scene() -> None:
        script = "trap : INT; tty >&2; sh -c 'echo begun; exec sleep 1000'; echo ended with $?; exit 5"
        async with on_host() as host, await host.open(sh(script), terminal=SIZE) as channel:
            shown = await until(channel, b"begun\r\n")
            assert shown.startswith(b"/dev/pts/")
            await channel.write(b"\x03")
            assert await until(channel, b"ended with 130\r\n")
            assert await channel.wait() == 5
            assert await whole(channel.stderr) == b""

    play(scene)


def test_a_terminal_echoes_edits_lines_and_ends_them_with_ctrl_d(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, await host.open(sh("cat; echo over"), terminal=SIZE) as channel:
            await channel.write("wronä\x7fg\r".encode())
            assert await until(channel, b"g\r\nwrong\r\n")
            channel.write_eof()
            assert await until(channel, b"over\r\n")
            assert await whole(channel.stdout) == b""
            assert await channel.wait() == 0

    play(scene)


def test_a_script_with_anything_in_it_starts_in_a_terminal_unchanged(on_host: MakeHost) -> None:
    body = "".join(map(chr, range(1, 32))).replace("\n", "").replace("\r", "") + "x" * 20_000 + "é\x7f"

    async def scene() -> None:
        script = f"printf %s '{body}' | sha256sum"
        async with on_host() as host, await host.open(sh(script), terminal=SIZE) as channel:
            shown = await whole(channel.stdout)
            assert shown.split()[0].decode() == hashlib.sha256(body.encode()).hexdigest()

    play(scene)


def test_the_output_of_a_terminal_arrives_to_the_last_byte(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, await host.open(sh("seq 200000; exit 4"), terminal=SIZE) as channel:
            shown = await whole(channel.stdout)
            assert shown.split() == [b"%d" % number for number in range(1, 200_001)]
            assert await channel.wait() == 4

    play(scene)


# --- SSH when something is wrong


def test_a_broken_connection_is_told_from_the_programs_end(tmp_path: Path) -> None:
    async def scene() -> None:
        for leave in ("abort", "close"):
            async with Server(tmp_path).listening() as server:
                host = SshHost(server.address, server.host_key)
                async with await host.open(sh("echo begun; cat")) as channel:
                    await until(channel, b"begun\n")
                    getattr(server.clients[0], leave)()
                    with pytest.raises(HostUnreachableError, match="the connection broke"):
                        await anext(channel.stdout)
                    with pytest.raises(HostUnreachableError, match="the connection broke"):
                        await channel.write(b"more")
                    with pytest.raises(HostUnreachableError, match="the connection broke"):
                        await channel.wait()
                await host.close()

    play(scene)


def test_channels_leave_sessions_for_runs(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server, AsyncExitStack() as stack:
            host: Host = SshHost(server.address, server.host_key)
            stack.push_async_callback(host.close)
            for _ in range(6):
                await stack.enter_async_context(await host.open(sh("cat")))
            assert len(server.clients) == 1
            await asyncio.gather(*(host.run(sh("true")) for _ in range(10)))
            assert len(server.clients) == 1
            async with await host.open(sh("cat")):
                assert len(server.connected) == 2
            await become(lambda: server.open == 6, "the closed channel's session has ended")

    play(scene)


def test_a_server_without_terminals_says_so(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server(tmp_path)
        server.terminals = False
        async with server.listening():
            host = SshHost(server.address, server.host_key)
            with pytest.raises(HostError, match="refuses to create a terminal"):
                await host.open(sh("true"), terminal=SIZE)
            async with await host.open(sh("echo fine")) as channel:
                assert await whole(channel.stdout) == b"fine\n"
            assert len(server.clients) == 1
            await host.close()

    play(scene)


def test_an_account_that_starts_nothing_says_why(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server(tmp_path)
        server.shell = ["sh", "-c", "echo This account is currently not available.; exit 1"]
        async with server.listening():
            host = SshHost(server.address, server.host_key)
            for terminal in (None, SIZE):
                with pytest.raises(HostError, match=r"exit status 1\): This account is currently not available\."):
                    await host.open(sh("true"), terminal=terminal)
            await become(lambda: server.open == 0, "no session is left")
            await host.close()

    play(scene)


def test_giving_up_while_a_channel_opens_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server(tmp_path)
        server.shell = ["sh", "-c", "sleep 1000"]
        async with server.listening():
            host = SshHost(server.address, server.host_key)
            opening = asyncio.ensure_future(host.open(sh("true")))
            await become(lambda: len(server.processes) == 1, "the login shell runs")
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            await become(lambda: server.open == 0, "no session is left")
            await host.close()

    play(scene)
