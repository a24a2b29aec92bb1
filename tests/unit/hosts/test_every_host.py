"""What every kind of host promises."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dstack.commands.command import ANSWER, Command, Result, Stdin
from dstack.commands.host import Host, ask
from dstack.errors import CommandError, ErrorCode, HostError, HostUnreachableError
from dstack.hosts.local import LocalHost
from dstack.hosts.ssh.host import SshHost
from tests.unit.hosts.conftest import SECONDS, become, play
from tests.unit.hosts.servers import Server

MakeHost = Callable[[], AbstractAsyncContextManager[Host]]


@pytest.fixture(params=["local", "ssh"])
def on_host(request: pytest.FixtureRequest, tmp_path: Path) -> MakeHost:
    @asynccontextmanager
    async def local() -> AsyncIterator[Host]:
        host = LocalHost()
        yield host
        await host.close()

    @asynccontextmanager
    async def ssh() -> AsyncIterator[Host]:
        async with Server(tmp_path).listening() as server:
            host = SshHost(server.address, server.host_key)
            yield host
            await host.close()

    return {"local": local, "ssh": ssh}[request.param]


def sh(script: str, stdin: Stdin = b"", most: int = ANSWER) -> Command[Result]:
    return Command("test", script, lambda result: result, stdin, most=most)


async def collected(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_run_gives_all_that_the_command_left(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            assert await host.run(sh("echo out; echo err >&2; exit 7")) == Result(7, b"out\n", b"err\n")
            assert await host.run(sh("printf '\\000\\377\\r\\n'")) == Result(0, b"\0\xff\r\n", b"")
            assert await host.run(sh("cat", b"\0in\r\n")) == Result(0, b"\0in\r\n", b"")
            assert await host.run(sh("kill -9 $$")) == Result(137, b"", b"")

    play(scene)


def test_ask_parses_the_answer(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            assert await ask(host, Command("count", "echo 42", lambda result: int(result.stdout))) == 42

    play(scene)


def test_stdin_and_stdout_of_many_megabytes_arrive_unchanged(on_host: MakeHost) -> None:
    data = os.urandom(1_000_000) * 8
    digest = hashlib.sha256(data).hexdigest()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 777_777):
            yield data[start : start + 777_777]

    async def scene() -> None:
        async with on_host() as host:
            for stdin in (data, pieces):
                answer = await host.run(sh("sha256sum", stdin))
                assert answer.stdout.decode().split()[0] == digest
                assert (await host.run(sh("cat", stdin, len(data)))).stdout == data

    play(scene)


def test_a_command_need_not_read_its_stdin(on_host: MakeHost) -> None:
    closed = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            closed.append(True)

    async def scene() -> None:
        async with on_host() as host:
            assert await host.run(sh("echo no", b"x" * 3_000_000)) == Result(0, b"no\n", b"")
            assert await host.run(sh("exit 3", endless)) == Result(3, b"", b"")
            assert closed == [True]

    play(scene)


def test_a_source_of_stdin_that_fails_ends_the_command_with_its_error(on_host: MakeHost) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise LookupError("the file has gone")

    async def scene() -> None:
        async with on_host() as host:
            with pytest.raises(LookupError, match="the file has gone"):
                await host.run(sh("cat; cat; sleep 1000", broken))
            with pytest.raises(LookupError, match="the file has gone"):
                await collected(host.stream(sh("echo begun; sleep 1000", broken)))
            assert (await host.run(sh("echo fine"))).stdout == b"fine\n"

    play(scene)


def test_a_timeout_says_so_and_ends_the_command(on_host: MakeHost, tmp_path: Path) -> None:
    async def scene() -> None:
        async with on_host() as host:
            with pytest.raises(HostUnreachableError, match=r"test on .* did not answer in 0\.5 seconds"):
                await host.run(sh(f"echo $$ > {tmp_path}/pid; sleep 1000"), timeout=0.5)
            assert (await host.run(sh("echo fine"), timeout=30)).stdout == b"fine\n"

    play(scene)


def test_cancelling_a_run_ends_its_command(on_host: MakeHost, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def scene() -> None:
        async with on_host() as host:
            running = asyncio.ensure_future(host.run(sh(f"echo $$ > {pid_file}; cat; exec sleep 1")))
            await become(lambda: pid_file.exists() and pid_file.read_text() != "", "the command runs")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await become(lambda: not alive(int(pid_file.read_text())), "the command has ended")

    play(scene)


def test_what_a_command_started_detached_goes_on(on_host: MakeHost, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 1000' >/dev/null 2>&1 </dev/null & sleep 1000"

    async def scene() -> None:
        async with on_host() as host:
            running = asyncio.ensure_future(host.run(sh(script)))
            await become(lambda: pid_file.exists() and pid_file.read_text() != "", "it runs")
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
        assert alive(int(pid_file.read_text()))
        os.kill(int(pid_file.read_text()), signal.SIGKILL)

    play(scene)


def test_closing_the_host_ends_what_runs_as_unreachable(on_host: MakeHost, tmp_path: Path) -> None:
    async def scene() -> None:
        async with on_host() as host:
            running = asyncio.ensure_future(host.run(sh(f"touch {tmp_path}/begun; sleep 1000")))
            await become((tmp_path / "begun").exists, "the command runs")
            await host.close()
            with pytest.raises(HostUnreachableError):
                await running

    play(scene)


def test_a_stream_arrives_while_the_command_runs(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host, aclosing(host.stream(sh("echo one; cat; echo end", b"two"))) as stream:  # type: ignore[type-var]
            got = b""
            async for piece in stream:
                got += piece
                if got == b"one\ntwo":
                    break
            assert got == b"one\ntwo"

    play(scene)


def test_a_stream_ends_with_the_command(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            assert await collected(host.stream(sh("echo one; echo two"))) == b"one\ntwo\n"
            with pytest.raises(CommandError, match="test failed with exit status 4: bad luck") as caught:
                await collected(host.stream(sh("echo one; echo bad luck >&2; exit 4")))
            assert caught.value.exit_status == 4

    play(scene)


def test_the_reader_of_a_stream_that_goes_is_noticed_by_the_end_of_stdin(on_host: MakeHost, tmp_path: Path) -> None:
    script = f"echo begun; cat; touch {tmp_path}/noticed"

    async def scene() -> None:
        async with on_host() as host:
            stream: Any = host.stream(sh(script))
            assert await stream.__anext__() == b"begun\n"
            await stream.aclose()
            await become((tmp_path / "noticed").exists, "the script saw the end of its stdin")

    play(scene)


def test_a_stream_whose_script_ignores_the_end_is_ended(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            stream: Any = host.stream(sh("echo $$; exec sleep 1000"))
            pid = int(await stream.__anext__())
            await stream.aclose()
            await become(lambda: not alive(pid), "the command has ended")

    play(scene)


def test_a_slow_reader_of_a_stream_holds_the_command_back(on_host: MakeHost, tmp_path: Path) -> None:
    script = f"head -c 30000000 /dev/zero; touch {tmp_path}/done"

    async def scene() -> None:
        async with on_host() as host:
            stream: Any = host.stream(sh(script))
            size = len(await stream.__anext__())
            with pytest.raises(AssertionError):
                await become((tmp_path / "done").exists, "the command is held back", seconds=0.3)
            async for piece in stream:
                size += len(piece)
            assert size == 30_000_000
            assert (tmp_path / "done").exists()

    play(scene)


def test_many_at_once(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            answers = await asyncio.gather(*(host.run(sh(f"cat; echo {n}", b"%d" % n)) for n in range(30)))
            assert [answer.stdout for answer in answers] == [b"%d%d\n" % (n, n) for n in range(30)]

    play(scene)


def test_a_script_starts_in_the_home_folder(on_host: MakeHost, home: Path) -> None:
    async def scene() -> None:
        async with on_host() as host:
            answer = await host.run(sh("pwd; umask"))
            folder, mask = answer.stdout.decode().split()
            assert int(mask, 8) == 0o077
            if isinstance(host, LocalHost):
                assert folder == str(home)

    play(scene)


def test_a_command_that_can_not_begin_says_what_the_account_said(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server(tmp_path)
        server.shell = ["sh", "-c", "echo This account is currently not available.; exit 1"]
        async with server.listening():
            host = SshHost(server.address, server.host_key)
            with pytest.raises(HostError, match=r"exit status 1\): This account is currently not available\."):
                await host.run(sh("true"))
            with pytest.raises(HostError, match=r"exit status 1\): This account is currently not available\."):
                await collected(host.stream(sh("true")))
            await host.close()

    play(scene)


@pytest.mark.parametrize("where", ["1", "2"], ids=["stdout", "stderr"])
def test_a_login_shell_that_prints_without_end(tmp_path: Path, where: str) -> None:
    async def scene() -> None:
        server = Server(tmp_path)
        server.shell = ["sh", "-c", f"yes | head -c 3000000 >&{where}"]
        async with server.listening():
            host = SshHost(server.address, server.host_key)
            told = r"the login shell printed more than 1 MB before it started the command"
            with pytest.raises(HostError, match=told):
                await host.run(sh("true"))
            with pytest.raises(HostError, match=told):
                await collected(host.stream(sh("true")))
            if where == "1":
                with pytest.raises(HostError, match=told):
                    await host.open(sh("true"))
            await host.close()

    play(scene)


def test_a_local_command_has_none_of_the_servers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("DOCKER_HOST", "unix:///tmp/d.sock")

    async def scene() -> None:
        answer = await LocalHost().run(sh('echo "$GIT_DIR" "$DOCKER_HOST"'))
        assert answer.stdout == b" unix:///tmp/d.sock\n"

    play(scene)


def test_a_local_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def scene() -> None:
        running = asyncio.ensure_future(
            LocalHost().run(sh(f"trap '' TERM; echo $$ > {pid_file}; while :; do sleep 1; done"))
        )
        await become(lambda: pid_file.exists() and pid_file.read_text() != "", "the command runs")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not alive(int(pid_file.read_text()))

    play(scene)


@pytest.mark.parametrize("where", ["1", "2"], ids=["stdout", "stderr"])
def test_an_answer_without_end_is_not_read_to_its_end(on_host: MakeHost, tmp_path: Path, where: str) -> None:
    async def scene() -> None:
        async with on_host() as host:
            with pytest.raises(HostError, match=r"test on .*: it sent more than 1 MB, .* the end is: y y") as refused:
                await host.run(sh(f"echo $$ > {tmp_path}/pid; exec yes >&{where}"))
            assert refused.value.code == ErrorCode.HOST_FLOOD
            await become(lambda: not alive(int((tmp_path / "pid").read_text())), "the program has ended")
            assert (await host.run(sh("echo fine"))).stdout == b"fine\n"

    play(scene)


def test_an_answer_may_be_as_long_as_its_command_says(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            whole = await host.run(sh(f"head -c {3 * ANSWER} /dev/zero", most=3 * ANSWER))
            assert len(whole.stdout) == 3 * ANSWER

    play(scene)


def test_errors_without_end_beside_a_stream_fill_no_memory(on_host: MakeHost) -> None:
    async def scene() -> None:
        async with on_host() as host:
            with pytest.raises(CommandError, match="exit status 3") as refused:
                await collected(host.stream(sh("yes | head -c 5000000 >&2; exit 3")))
            assert len(refused.value.stderr) < 100_000

    play(scene)


FLAT = """
import asyncio, re, sys
from pathlib import Path
from dstack.commands.command import Command
from dstack.errors import HostError
from dstack.hosts import local

def most():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024

async def flood(start, script):
    local.START = start + local.START
    try:
        await local.LocalHost().run(Command("test", script, bool))
    except HostError as refused:
        return refused.code
    finally:
        local.START = local.START.removeprefix(start)

before = most()
for start, script in (("", "yes"), ("", "yes >&2"), ("yes;", ":"), ("yes >&2;", ":")):
    assert asyncio.run(flood(start, script)) == "host-flood", (start, script)
print(most() - before)
"""


def test_memory_stays_flat_whatever_a_host_sends() -> None:
    grown = subprocess.run([sys.executable, "-c", FLAT], capture_output=True, text=True, check=True, timeout=SECONDS)

    assert int(grown.stdout) < 40, "megabytes"
