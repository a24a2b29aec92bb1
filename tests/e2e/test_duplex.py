"""Channels through the real sshd, to users whose login shell is fish or tcsh."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dstack.commands.command import Command
from dstack.commands.host import Channel, TerminalSize
from dstack.errors import HostError, HostUnreachableError
from dstack.hosts.ssh.host import SshHost
from dstack.model.runner.runner import Address
from tests.environment import account, needs
from tests.environment.sshd import Sshd

SIZE = TerminalSize(columns=100, rows=40)
GREETINGS = {
    "fish": (".config/fish/config.fish", "echo hello from fish; function cat; false; end\n"),
    "tcsh": (".tcshrc", "echo hello from tcsh; set noglob\n"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for the client, without keys and configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dsd-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module", params=["fish", "tcsh"])
def user(request: pytest.FixtureRequest, folder: Path) -> Iterator[account.Account]:
    """A user with that login shell, which prints a greeting."""
    shell = request.param
    path = shutil.which(shell)
    if path is None:
        needs.missing(f"{shell} is not installed; install it: apt-get install {shell}")
    person = account.create(f"dstack-d-{shell}-{os.getpid()}", folder / shell, group=os.getgid(), shell=path)
    name, text = GREETINGS[shell]
    file = person.home / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    try:
        yield person
    finally:
        account.remove(person)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Sshd]:
    """An sshd that accepts these users."""
    server = Sshd(folder / "sshd", f"dstack-d-*-{os.getpid()}")
    server.start()
    try:
        yield server
    finally:
        server.close()


@asynccontextmanager
async def connected(server: Sshd, user: account.Account) -> AsyncIterator[SshHost]:
    host = SshHost(
        Address(host=server.host, port=server.port, user=user.name, identity=str(server.identity)), server.host_key
    )
    try:
        yield host
    finally:
        await host.close()


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run the coroutine, and check that it leaves no task behind."""

    async def scene_and_check() -> None:
        await asyncio.wait_for(scene(), 300)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene_and_check())


def sh(script: str) -> Command[None]:
    return Command("test", script, lambda result: None)


async def until(channel: Channel, text: bytes) -> bytes:
    """Read stdout until this text."""
    seen = b""
    while text not in seen:
        seen += await anext(channel.stdout)
    return seen


async def feed(channel: Channel, source: asyncio.StreamReader) -> None:
    while piece := await source.read(256 * 1024):
        await channel.write(piece)
    channel.write_eof()


async def tar(*words: str | Path) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec("tar", *words, stdin=pipe, stdout=pipe, limit=1 << 20)


def sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_hundred_megabytes_of_tar_go_there_and_come_back(server: Sshd, user: account.Account, tmp_path: Path) -> None:
    # given
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    back.mkdir()
    random = os.urandom(1_000_000)
    for number in range(10):
        (there / f"file {number}").write_bytes(random[number:] * 10)

    async def scene() -> None:
        async with connected(server, user) as host:
            # when
            async with await host.open(sh("mkdir came && tar -C came -xf -")) as channel:
                packing = await tar("-C", there, "-cf", "-", ".")
                assert packing.stdout
                await feed(channel, packing.stdout)
                assert await packing.wait() == 0
                assert await channel.wait() == 0
            async with await host.open(sh("tar -C came -cf - . && rm -r came")) as channel:
                unpacking = await tar("-C", back, "-xf", "-")
                assert unpacking.stdin
                async for piece in channel.stdout:
                    unpacking.stdin.write(piece)
                    await unpacking.stdin.drain()
                assert await channel.wait() == 0
                await unpacking.communicate()
                assert unpacking.returncode == 0

    play(scene)

    # then
    assert sums(back) == sums(there)


def test_every_byte_passes_in_both_directions_at_once(server: Sshd, user: account.Account) -> None:
    payload = bytes(range(256)) * 40_000

    async def scene() -> None:
        async with connected(server, user) as host, await host.open(sh("cat; echo over >&2; exit 7")) as channel:
            source = asyncio.StreamReader()
            source.feed_data(payload)
            source.feed_eof()
            feeding = asyncio.ensure_future(feed(channel, source))
            assert b"".join([piece async for piece in channel.stdout]) == payload
            assert b"".join([piece async for piece in channel.stderr]) == b"over\n"
            await feeding
            assert await channel.wait() == 7

    play(scene)


def test_a_terminal_is_resized(server: Sshd, user: account.Account) -> None:
    async def scene() -> None:
        script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
        async with connected(server, user) as host, await host.open(sh(script), terminal=SIZE) as channel:
            assert await until(channel, b"\r\n") == b"40 100\r\n"
            channel.resize(132, 50)
            assert await until(channel, b"\r\n") == b"50 132\r\n"

    play(scene)


def test_ctrl_c_ends_sleep_in_a_terminal(server: Sshd, user: account.Account) -> None:
    async def scene() -> None:
        asleep = "sh -c 'test -t 0 && test -t 1 && test -t 2 && echo begun; exec sleep 1000'"
        script = f"trap : INT; {asleep}; echo ended with $?; exit 5"
        async with connected(server, user) as host, await host.open(sh(script), terminal=SIZE) as channel:
            assert await until(channel, b"\r\n") == b"begun\r\n"
            await channel.write(b"\x03")
            assert await until(channel, b"ended with 130\r\n")
            assert await channel.wait() == 5

    play(scene)


def test_a_terminal_is_an_ordinary_one_for_people(server: Sshd, user: account.Account) -> None:
    async def scene() -> None:
        async with connected(server, user) as host, await host.open(sh("cat; echo over"), terminal=SIZE) as channel:
            await channel.write("wronä\x7fg\r".encode())
            assert await until(channel, b"g\r\nwrong\r\n")
            channel.write_eof()
            assert await until(channel, b"over\r\n")
            assert await channel.wait() == 0

    play(scene)


def test_a_signal_reaches_the_program_and_a_close_kills_it(server: Sshd, user: account.Account) -> None:
    async def scene() -> None:
        script = "trap 'echo caught' USR1; trap '' TERM HUP; echo $$; while :; do sleep 0.05; done"
        async with connected(server, user) as host:
            for terminal in (None, SIZE):
                channel = await host.open(sh(script), terminal=terminal)
                pid = int(await until(channel, b"\n"))
                channel.signal("USR1")
                await until(channel, b"caught")
                assert pid in account.processes(user.uid)
                await channel.close()
                assert await channel.wait() == 137
                assert pid not in account.processes(user.uid)

    play(scene)


@pytest.mark.parametrize("terminal", [None, SIZE])
def test_a_connection_that_is_killed_is_unreachable(
    server: Sshd, user: account.Account, terminal: TerminalSize | None
) -> None:
    async def scene() -> None:
        async with (
            connected(server, user) as host,
            await host.open(sh("echo begun; cat"), terminal=terminal) as channel,
        ):
            await until(channel, b"begun")
            server.cut()
            with pytest.raises(HostUnreachableError, match="the connection broke"):
                await anext(channel.stdout)
            with pytest.raises(HostUnreachableError, match="the connection broke"):
                await channel.wait()
            with pytest.raises(HostUnreachableError, match="the connection broke"):
                await channel.write(b"more")
            async with await host.open(sh("echo again")) as other:
                assert await until(other, b"\n") == b"again\n"

    play(scene)


def test_an_sshd_without_terminals_says_so(folder: Path, user: account.Account) -> None:
    strict = Sshd(folder / f"strict-{user.uid}", user.name, ["PermitTTY no"])
    strict.start()

    async def scene() -> None:
        async with connected(strict, user) as host:
            with pytest.raises(HostError, match="refuses to create a terminal"):
                await host.open(sh("true"), terminal=SIZE)
            async with await host.open(sh("echo fine")) as channel:
                assert await until(channel, b"\n") == b"fine\n"

    try:
        play(scene)
    finally:
        strict.close()
