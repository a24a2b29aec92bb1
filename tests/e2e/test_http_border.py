"""The server's border with real sockets and a real process: what nobody with a token sends, and what a token allows."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from dstack.client.embedded import answers
from tests.environment.product import Home, program, servers
from tests.environment.sshd import free_port
from tests.environment.waiting import until

TOKEN = "the-servers-token"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
GIB = 1 << 30


class Team:
    """A server on TCP with few open files, and its home."""

    def __init__(self, files: int, *options: str) -> None:
        self.home, self.port = Home(), free_port()
        limited = ["prlimit", f"--nofile={files}", program(), "server", "start", "--port", str(self.port), *options]
        environment = {**self.home.environment, "DSTACK_TOKEN": TOKEN}
        done = subprocess.run(limited, cwd=self.home.path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        self.pid = servers(self.home.dstack)[0]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        status, text = self.exchange(method, path, body, headers)
        return status, json.loads(text)

    def exchange(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, bytes]:
        """Send a request, of which the server may read less than all, and return the answer."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body, headers, encode_chunked="Transfer-Encoding" in headers)
            with connection.getresponse() as response:
                return response.status, response.read()

    @property
    def peak(self) -> int:
        """The most memory that the process ever had, in MB."""
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found
        return int(found[1]) // 1000

    @property
    def log(self) -> str:
        return (self.home.dstack / "server" / "server.log").read_text()


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    made = Team(1024)
    yield made
    made.home.close()


def flood(team: Team, head: str, size: int = GIB) -> tuple[int, bytes]:
    """Send a request with a large body until the server refuses it. Return the bytes sent, and the answer."""
    piece, sent = bytes(1 << 20), 0
    with team.connect() as connection:
        connection.sendall(head.encode())
        with suppress(OSError):
            while sent < size:
                connection.sendall(piece)
                sent += len(piece)
        with suppress(ConnectionResetError):
            return sent, connection.recv(4096)
    return sent, b""


@pytest.mark.parametrize(
    ("route", "length", "status"),
    [
        ("/v1/registrations", f"Content-Length: {GIB}", b"413"),
        ("/v1/registrations", "Transfer-Encoding: chunked", b"413"),
        ("/v1/runs", f"Content-Length: {GIB}", b"401"),
        ("/v1/stop", f"Content-Length: {GIB}", b"413"),
        ("/v1/nowhere", f"Content-Length: {GIB}", b"413"),
        ("/dstack-runner", f"Content-Length: {GIB}", b"413"),
    ],
)
def test_a_gibibyte_without_a_token_is_not_read(team: Team, route: str, length: str, status: bytes) -> None:
    before = team.peak
    head = f"POST {route} HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}\r\n\r\n"
    if "chunked" in length:
        head += f"{GIB:x}\r\n"

    sent, answer = flood(team, head)

    assert sent < 100 << 20
    assert answer[9:12] == status
    assert team.peak - before < 20


def test_an_endless_head_is_not_kept(team: Team) -> None:
    before = team.peak

    sent, answer = flood(team, "GET / HTTP/1.1\r\nX: ")

    assert sent < 50 << 20
    assert answer[:12] in (b"HTTP/1.1 400", b"")
    assert team.peak - before < 20


def test_a_body_with_a_token_has_a_limit_and_is_told_so(team: Team) -> None:
    status, problem = team.ask("/v1/stop", "POST", bytes(2 << 20), **AUTHORIZED)

    assert (status, problem["code"]) == (413, "too-large")
    assert problem["message"] == "the request is too large: this route accepts at most 1 MB"


def test_a_pack_of_any_size_is_streamed_if_it_announces_its_size(team: Team) -> None:
    before = team.peak
    chunked = {**AUTHORIZED, "Transfer-Encoding": "chunked"}
    pieces = (b"{}\n", *[bytes(1 << 20)] * 200)
    announced_size = {**AUTHORIZED, "Content-Length": str(sum(map(len, pieces)))}

    announced, told = team.exchange("POST", "/v1/runs", iter(pieces), announced_size)
    unannounced, why = team.exchange("POST", "/v1/runs", iter(pieces), chunked)

    assert (announced, json.loads(told)["code"]) == (
        400,
        "usage",
    )  # {} is no submission, which is told when all of it has arrived
    assert (unannounced, json.loads(why)["code"]) == (413, "too-large")
    assert team.peak - before < 20
    assert not list((team.home.dstack / "server" / "incoming").iterdir())


@pytest.mark.parametrize("depth", [3000, 100_000])
def test_json_may_be_nested_as_deeply_as_it_likes(team: Team, depth: int) -> None:
    nested = b'{"refs":["x"],"x":' + b"[" * depth + b"]" * depth + b"}"

    status, problem = team.ask("/v1/stop", "POST", nested, **AUTHORIZED)

    assert status == 400
    assert problem["message"] == "the request is not valid: it is nested too deeply"
    assert "Traceback" not in team.log


def test_idle_connections_never_lock_anyone_out() -> None:
    team = Team(512)
    idle = []
    try:
        idle = [team.connect() for _ in range(600)]
        for connection in idle[:300]:
            connection.sendall(b"GET /v1/status HTTP/1.1\r\nX-Slow: ")
        began = time.monotonic()
        owner = socket.socket(socket.AF_UNIX)
        owner.settimeout(30)
        owner.connect(str(team.home.dstack / "server" / "socket"))
        owner.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert owner.recv(4096).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - began < 1
        assert team.ask("/v1/status", **AUTHORIZED)[0] == 200
        assert len(team.log) < 5000
        owner.close()
    finally:
        for connection in idle:
            connection.close()
        team.home.close()


def test_wrong_tokens_are_slowed_down_and_logged_once(team: Team) -> None:
    assert team.ask("/v1/status", **AUTHORIZED)[0] == 200

    answers = []
    for number in range(30):
        wrong = {"Authorization": f"Bearer {number}"}
        team.exchange("GET", "/dstack-runner", None, wrong)  # accepts any token, so that says nothing about this one
        answers.append(team.ask("/v1/status", **wrong))

    assert [status for status, _ in answers[:20]] == [401] * 20
    assert answers[-1][0] == 429
    assert answers[-1][1]["code"] == "too-many"
    assert team.ask("/v1/status", **AUTHORIZED)[0] == 200  # a token that worked before is not held up
    assert team.log.count("127.0.0.1 without a valid token") == 1


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example"}, 421, "foreign-host"),
        ({"Host": "evil.example:80"}, 421, "foreign-host"),
        ({"Host": "127.0.0.1.evil.example"}, 421, "foreign-host"),
        ({"Origin": "http://evil.example"}, 403, "foreign-origin"),
        ({"Origin": "null"}, 403, "foreign-origin"),
        ({"Origin": "http://localhost:3000"}, 403, "foreign-origin"),
    ],
)
def test_what_is_meant_for_another_host_or_comes_from_another_site_is_refused(
    team: Team, headers: dict[str, str], status: int, code: str
) -> None:
    answer = team.ask("/v1/status", **AUTHORIZED, **headers)

    assert (answer[0], answer[1]["code"]) == (status, code)


@pytest.mark.parametrize("host", ["10.1.2.3", "[::1]:8000", "LOCALHOST", socket.gethostname()])
def test_its_own_names_and_addresses_are_known(team: Team, host: str) -> None:
    assert team.ask("/v1/status", **AUTHORIZED, Host=host)[0] == 200
    assert team.ask("/v1/status", **AUTHORIZED, Host=host, Origin=f"https://{host}")[0] == 200


def test_all_routes_lie_below_the_base_path_and_it_answers_to_names_that_were_allowed() -> None:
    team = Team(1024, "--base-path", "/dstack/", "--allow-host", "ml.example")
    try:
        url = f"http://127.0.0.1:{team.port}/dstack"
        environment = {"DSTACK_SERVER_URL": url, "DSTACK_TOKEN": TOKEN}
        status = team.home.run("server", "status", "--json", env=environment)
        assert json.loads(status.stdout)["url"] == url
        outside = team.home.run("server", "status", env={**environment, "DSTACK_SERVER_URL": url[: -len("/dstack")]})
        assert outside.returncode == 2
        assert f"hint: dstack config --url {url}" in outside.stderr
        assert team.home.run("server", "status").returncode == 0  # its owner needs no prefix

        _, source = team.exchange("GET", "/dstack/dstack-runner", None, {"Host": "ml.example"})
        assert 'SERVER = "http://ml.example/dstack"' in source.decode()
    finally:
        team.home.close()


def test_a_follower_that_does_not_read_is_dropped_when_the_server_stops(team: Team) -> None:
    with team.connect() as follower:
        follower.sendall(
            f"GET /v1/events?follow=1 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        assert follower.recv(20).startswith(b"HTTP/1.1 200")

        stopped = team.home.run("server", "stop")

    assert stopped.returncode == 0
    assert "Traceback" not in team.log
    assert "ERROR" not in team.log
    assert team.home.run("server", "start", "--port", str(team.port)).returncode == 0
    team.pid = servers(team.home.dstack)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_an_ordinary_stop(number: int) -> None:
    home = Home()
    server = home.popen("server", "start", "--foreground")
    try:
        until(lambda: answers(home.dstack), "it answers")
        os.kill(server.pid, number)
        _, log = server.communicate(timeout=60)

        assert server.returncode == 0
        assert b"Traceback" not in log
        assert not (home.dstack / "server" / "socket").exists()
    finally:
        server.kill()
        server.communicate()
        home.close()
