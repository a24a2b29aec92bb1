from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dstack.commands.command import Command, Result
from dstack.errors import HostUnreachableError
from dstack.hosts.local import LocalHost
from dstack.hosts.pool import Pool
from dstack.model.runner.runner import Address, Runner
from tests.unit.hosts.conftest import become, play
from tests.unit.hosts.servers import Server

HELLO = Command("hello", "echo hello", lambda result: result.stdout)


def runner(server: Server, name: str = "box") -> Runner:
    return Runner(name=name, address=server.address, host_key=server.host_key)


def test_a_runner_keeps_its_host_and_its_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            pool = Pool()
            assert pool.get(runner(server)) is pool.get(runner(server))
            assert pool.get(runner(server, "other")) is not pool.get(runner(server))
            for _ in range(3):
                assert await pool.get(runner(server)).run(HELLO) == Result(0, b"hello\n", b"")
            assert len(server.clients) == 1
            await pool.close_all()
            await become(lambda: server.connected == [], "the connection is closed")

    play(scene)


def test_another_address_or_key_makes_another_host(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as first, Server(tmp_path).listening() as second:
            pool = Pool()
            old = pool.get(runner(first))
            await old.run(HELLO)
            new = pool.get(runner(second))
            assert new is not old
            assert await new.run(HELLO) == Result(0, b"hello\n", b"")
            await become(lambda: first.connected == [], "the old connection is closed")
            with pytest.raises(HostUnreachableError, match="dstack closed the connection"):
                await old.run(HELLO)
            labelled = msgspec.structs.replace(runner(second), labels=("fast",))
            assert pool.get(labelled) is new
            await pool.close_all()

    play(scene)


def test_closing_one_runner_leaves_the_others(tmp_path: Path) -> None:
    async def scene() -> None:
        async with Server(tmp_path).listening() as server:
            pool = Pool()
            one, other = pool.get(runner(server, "one")), pool.get(runner(server, "other"))
            await asyncio.gather(one.run(HELLO), other.run(HELLO))
            await pool.close("one")
            await pool.close("never heard of")
            await become(lambda: len(server.connected) == 1, "one connection is left")
            assert await other.run(HELLO) == Result(0, b"hello\n", b"")
            assert pool.get(runner(server, "one")) is not one
            await pool.close_all()

    play(scene)


def test_this_machine_needs_no_ssh() -> None:
    program = (
        "import sys, asyncio\n"
        "from dstack.hosts import pool, recording, trust\n"
        "from dstack.model.runner.runner import Address, Runner\n"
        "pool.Pool().get(Runner(name='here', address=Address()))\n"
        "assert 'asyncssh' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert isinstance(Pool().get(Runner(name="here", address=Address())), LocalHost)
