"""Names with several addresses, and what ssh_config sets for them."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from dstack.commands.command import Command, Result
from dstack.errors import HostUnreachableError
from dstack.hosts.ssh.host import SshHost
from dstack.hosts.ssh.tcp import Direct
from dstack.model.runner.runner import Address
from tests.unit.hosts.conftest import play
from tests.unit.hosts.servers import Server

NAME = "box.example"
HELLO = Command[Result]("hello", "echo hello", lambda result: result)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Add names to the machine's resolver."""
    known: dict[str, list[str]] = {}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, family: int = 0, *rest: Any, **more: Any) -> list[Any]:
        found = [entry for name in known.get(host, [host]) for entry in real(name, port, 0, *rest, **more)]
        return [entry for entry in found if family in (0, entry[0])]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def at(server: Server) -> Address:
    return Address(host=NAME, port=server.port, user="me", identity=str(server.identity))


@pytest.mark.parametrize("addresses", [["127.0.0.9", "127.0.0.1"], ["::1", "127.0.0.9", "127.0.0.1", "127.0.0.1"]])
def test_an_address_that_refuses_is_passed_over(
    tmp_path: Path, names: dict[str, list[str]], addresses: list[str]
) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            names[NAME] = addresses
            host = SshHost(at(server), server.host_key)
            assert await host.run(HELLO) == Result(0, b"hello\n", b"")
            await host.close()

    play(scene)


def test_an_address_that_is_silent_leaves_time_for_the_next(tmp_path: Path, names: dict[str, list[str]]) -> None:
    silent = socket.socket()
    silent.bind(("127.0.0.7", 0))
    silent.listen(0)
    port = silent.getsockname()[1]
    waiting = [socket.socket() for _ in range(2)]  # what fills its queue: it answers nobody any more
    for each in waiting:
        each.setblocking(False)
        each.connect_ex(("127.0.0.7", port))

    async def scene() -> None:
        names[NAME] = ["127.0.0.7", "127.0.0.1"]
        async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
            transport, _ = await Direct(patience=0.3).create_connection(asyncio.Protocol, NAME, port)
            assert transport.get_extra_info("peername") == ("127.0.0.1", port)
            transport.close()

    try:
        play(scene)
    finally:
        for each in (silent, *waiting):
            each.close()


def test_the_last_trouble_is_told_when_no_address_answers(tmp_path: Path, names: dict[str, list[str]]) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            names[NAME] = ["127.0.0.8", "127.0.0.9"]
            host = SshHost(at(server), server.host_key)
            with pytest.raises(HostUnreachableError, match=f"{NAME}.* can't be reached: Connection refused"):
                await host.run(HELLO)
            await host.close()

    play(scene)


def test_the_configurations_family_and_own_address_count(
    tmp_path: Path, home: Path, names: dict[str, list[str]]
) -> None:
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text(f"Host {NAME}\n  AddressFamily inet\n  BindAddress 127.0.0.5\n")
    seen = []

    async def scene() -> None:
        async with (
            Server(tmp_path).listening() as server,
            await asyncio.start_server(lambda _, writer: seen.append(writer) or writer.close(), "::1", server.port),
        ):
            names[NAME] = ["::1", "127.0.0.1"]
            host = SshHost(at(server), server.host_key)
            assert await host.run(HELLO) == Result(0, b"hello\n", b"")
            (client,) = server.connected
            assert client.get_extra_info("peername")[0] == "127.0.0.5"
            await host.close()
        assert seen == []

    play(scene)


def test_ipv6(tmp_path: Path) -> None:
    async def scene() -> None:
        server = Server(tmp_path, at="::1")
        async with server.listening():
            host = SshHost(Address.parse(f"me@[::1]:{server.port}"), server.host_key)
            with pytest.raises(Exception, match="keys tried: none found"):
                await host.run(HELLO)
            await host.close()
            named = Address(host="::1", port=server.port, user="me", identity=str(server.identity))
            host = SshHost(named, server.host_key)
            assert await host.run(HELLO) == Result(0, b"hello\n", b"")
            await host.close()

    play(scene)
