"""Connections that are slow, silent or do not read are dropped. A real server on real sockets, with short limits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dstack.server.border import bodies, connections
from dstack.server.border.listener import Border, Listener
from dstack.server.border.names import OwnNames
from dstack.server.endpoints import answering

SHORT = 0.3
Scenario = Callable[["Reached"], Awaitable[None]]


class Reached:
    """A server, the connections to it, and how many streams it is sending."""

    def __init__(self, listener: Listener, port: int) -> None:
        self.listener, self.port, self.streams = listener, port, 0

    async def connect(self, head: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head)
        return reader, writer

    @property
    def open(self) -> int:
        return len(self.listener.server_state.connections)


async def size(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


def serve(scenario: Scenario) -> None:
    """Run the scenario against a server with three routes: /v1/size, /v1/runs (a streamed body) and /v1/stream."""

    async def endless() -> AsyncIterator[bytes]:
        reached.streams += 1
        try:
            while True:
                yield bytes(1 << 18)
                await asyncio.sleep(0)
        finally:
            reached.streams -= 1

    def stream(request: Request) -> Response:
        return StreamingResponse(endless())

    async def run() -> None:
        nonlocal reached
        listening = socket.create_server(("127.0.0.1", 0))
        routes = [Route("/v1/size", answering(size), methods=["POST", "GET"])]
        routes += [Route("/v1/runs", answering(size), methods=["POST"]), Route("/v1/stream", stream)]
        listener = Listener(Starlette(routes=routes), Border(OwnNames()))
        reached = Reached(listener, listening.getsockname()[1])
        served = asyncio.create_task(listener.serve([listening]))
        await until(lambda: listener.started)
        try:
            await asyncio.wait_for(scenario(reached), 30)
        finally:
            listener.stop()
            await served

    reached: Any = None
    asyncio.run(run())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", SHORT)
    monkeypatch.setattr(connections, "READ_SECONDS", SHORT)
    monkeypatch.setattr(bodies, "SECONDS", SHORT)
    return


@pytest.mark.parametrize("head", [b"", b"GET /v1/size HTTP/1.1\r\nX: "])
def test_a_connection_without_a_whole_request_is_closed(head: bytes) -> None:
    async def scenario(server: Reached) -> None:
        reader, writer = await server.connect(head)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        await until(lambda: server.open == 0)
        writer.close()

    serve(scenario)


def test_one_byte_at_a_time_does_not_help() -> None:
    async def scenario(server: Reached) -> None:
        reader, writer = await server.connect(b"GET /v1/size HTTP/1.1\r\nX: ")
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and not reader.exception():
                writer.write(b"x")
                await asyncio.sleep(0.02)
        assert time.monotonic() - began < 20
        writer.close()

    serve(scenario)


@pytest.mark.parametrize("route", [b"size", b"runs"])
def test_a_body_that_stays_away_is_answered_with_408(route: bytes) -> None:
    async def scenario(server: Reached) -> None:
        reader, writer = await server.connect(
            b"POST /v1/" + route + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc"
        )
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"too-slow"' in answer
        writer.close()

    serve(scenario)


@pytest.mark.parametrize(("route", "whole"), [(b"size", False), (b"runs", True)])
def test_a_body_that_trickles_may_take_its_time_only_if_it_is_streamed(route: bytes, whole: bool) -> None:
    async def scenario(server: Reached) -> None:
        reader, writer = await server.connect(
            b"POST /v1/" + route + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 20\r\n\r\n"
        )
        for _ in range(20):
            writer.write(b"x")
            await asyncio.sleep(2 * SHORT / 20)
        with contextlib.suppress(ConnectionError):
            assert (b"201" in (await reader.read())[:12]) is whole
        writer.close()

    serve(scenario)


def test_who_does_not_read_a_stream_is_dropped_and_little_is_kept_for_it() -> None:
    async def scenario(server: Reached) -> None:
        _reader, writer = await server.connect(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: server.streams == 1)
        connection = next(iter(server.listener.server_state.connections))
        largest = 0
        while server.streams:
            largest = max(largest, connection.transport.get_write_buffer_size())
            await asyncio.sleep(0.01)
        assert 0 < largest < 1 << 20
        await until(lambda: server.open == 0)
        writer.close()

    serve(scenario)


def test_who_reads_a_stream_slowly_keeps_it() -> None:
    async def scenario(server: Reached) -> None:
        reader, writer = await server.connect(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began, read = time.monotonic(), 0
        while time.monotonic() - began < 3 * SHORT:
            read += len(await reader.read(1 << 20))
            await asyncio.sleep(0.01)
        assert server.streams == 1
        writer.close()

    serve(scenario)


def test_the_longest_idle_connection_makes_room_and_busy_ones_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 60)
    monkeypatch.setattr(connections, "MOST", 3)

    async def scenario(server: Reached) -> None:
        stream = await server.connect(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: server.streams == 1)
        idle = [await server.connect() for _ in range(2)]
        await until(lambda: server.open == 3)
        reading = asyncio.create_task(drained(stream[0]))

        late = await server.connect(b"GET /v1/size HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")

        assert b'{"size":0}' in await late[0].read()
        with contextlib.suppress(ConnectionResetError):
            assert await idle[0][0].read() == b""
        assert server.streams == 1
        reading.cancel()
        for _, writer in (stream, late, *idle):
            writer.close()

    serve(scenario)


def test_if_all_are_busy_a_new_one_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "READ_SECONDS", 60)
    monkeypatch.setattr(connections, "MOST", 2)

    async def scenario(server: Reached) -> None:
        streams = [await server.connect(b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n") for _ in range(2)]
        await until(lambda: server.streams == 2)

        reader, writer = await server.connect()

        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b'"code":"too-many"' in answer
        assert b"X-Dstack-Version" in answer
        for _, other in (*streams, (reader, writer)):
            other.close()

    serve(scenario)


async def drained(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 20):
        pass
