"""The port of the web page on a server that has none of its own: opened when asked for, closed when nobody uses it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from dstack.engine.supervisor import Supervisor
from dstack.model.paths import ServerLayout
from dstack.server.web import port as web_port
from dstack.server.web.port import WebPort
from dstack.server.web.sessions import WebSessions
from dstack.store.store import Store

ASKED = Request({"type": "http", "method": "POST", "path": "/v1/ui", "headers": [], "query_string": b""})


class Listening:
    """Accepts connections on what it is given, and says nothing."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.servers: list[asyncio.Server] = []

    async def __call__(self, one: socket.socket) -> asyncio.Server:
        self.opened.append(one.getsockname()[1])
        self.servers.append(await asyncio.get_running_loop().create_server(asyncio.Protocol, sock=one))
        return self.servers[-1]


def made(folder: Path, listening: Listening, url: str = "/home/ann/.dstack/server/socket", **given: Any) -> WebPort:
    idle = given.get("idle", lambda: 0.0)
    return WebPort(WebSessions(Store(ServerLayout(folder))), Supervisor(), url, listening, idle)


def test_it_is_opened_once_for_this_machine_alone(tmp_path: Path) -> None:
    listening = Listening()
    port = made(tmp_path, listening)

    async def asked() -> list[str | None]:
        urls = [(await port.link(ASKED)).url for _ in range(2)]
        listening.servers[0].close()
        return urls

    first, second = asyncio.run(asked())
    assert first == second == f"http://127.0.0.1:{listening.opened[0]}"
    assert len(listening.opened) == 1


def test_it_is_closed_when_nobody_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_port, "UNUSED", 0.05)
    listening, used = Listening(), [True]
    port = made(tmp_path, listening, idle=lambda: 0.0 if used.pop() else 1.0)
    used.insert(0, False)

    async def asked() -> None:
        await port.link(ASKED)
        while port.own is not None:
            await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", listening.opened[0])

    asyncio.run(asyncio.wait_for(asked(), 30))
    assert used == []


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("http://10.0.0.5:8000/lab", "http://10.0.0.5:8000/lab"),
        ("https://0.0.0.0:8000", "https://127.0.0.1:8000"),
        ("http://[::]:8000", "http://[::1]:8000"),
    ],
)
def test_a_server_with_a_port_needs_no_other(tmp_path: Path, url: str, reached: str) -> None:
    listening = Listening()

    assert asyncio.run(made(tmp_path, listening, url).link(ASKED)).url == reached
    assert listening.opened == []
