"""Ports of containers on another machine, through a team's server: servers of HTTP and WebSockets, and their ends."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.project import project
from tests.environment.product import Home, program
from tests.environment.sshd import free_port
from tests.environment.waiting import until

Cli = Callable[..., "subprocess.CompletedProcess[str]"]
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
ECHO = """
import base64, hashlib, socket, threading
def serve(connection):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += connection.recv(4096)
    key = [line.split(b": ")[1] for line in head.split(b"\\r\\n") if line.lower().startswith(b"sec-websocket-key")][0]
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
                       b"Sec-WebSocket-Accept: " + accept + b"\\r\\n\\r\\n")
    while True:
        kind, length = connection.recv(1), connection.recv(1)
        if not length:
            return
        mask, size = connection.recv(4), length[0] & 127
        text = bytes(byte ^ mask[at % 4] for at, byte in enumerate(connection.recv(size)))
        connection.sendall(kind + bytes([size]) + text)
listening = socket.create_server(("127.0.0.1", 9000))
while True:
    threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()
"""


def web_socket(port: int, texts: list[str]) -> list[str]:
    """Send each text as a frame, and return the frames that come back."""
    key = base64.b64encode(os.urandom(16))
    with socket.create_connection(("127.0.0.1", port), 60) as connection, connection.makefile("rb") as reader:
        connection.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )
        head = b"".join(iter(reader.readline, b"\r\n"))
        assert base64.b64encode(hashlib.sha1(key + GUID).digest()) in head
        back = []
        for text in texts:
            data, mask = text.encode(), os.urandom(4)
            masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))
            connection.sendall(struct.pack("BB", 0x81, 0x80 | len(data)) + mask + masked)
            _, size = struct.unpack("BB", reader.read(2))
            back.append(reader.read(size).decode())
        return back


class Follower:
    """`dstack run` or `dstack attach` in the background, and what it says."""

    def __init__(self, home: Home, folder: Path, *words: str, before: Sequence[str] = ()) -> None:
        self.said = b""
        self.process = subprocess.Popen(
            [*before, program(), *words],
            cwd=folder,
            env=home.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said += line

    def port(self, number: int) -> int:
        """The local port that leads to this one."""
        found: list[bytes] = []

        def told() -> bool:
            found[:] = re.findall(rb"port %d is at http://127.0.0.1:(\d+)" % number, self.said)
            return bool(found)

        until(told, f"port {number} is forwarded", 120)
        return int(found[0])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)
        self.reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()


def fetched(port: int, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        data: bytes = answer.read()
        return data


def served(port: int) -> bool:
    """Whether something behind the port answers by now."""
    try:
        return bool(fetched(port))
    except OSError:
        return False


@pytest.fixture
def followers() -> Iterator[list[Follower]]:
    made: list[Follower] = []
    yield made
    for each in made:
        each.close()


def test_ports_over_a_teams_server(
    cli: Cli, dstack_home: Home, runner: str, python_image: str, busybox: str, tmp_path: Path, followers: list[Follower]
) -> None:
    # given a server on TCP, and a run with servers that listen on the container's own loopback
    assert cli("server", "stop").returncode == 0
    port = free_port()
    assert cli("server", "start", "--port", str(port), env={"DSTACK_TOKEN": "t"}).returncode == 0
    dstack_home.environment |= {"DSTACK_SERVER_URL": f"http://127.0.0.1:{port}", "DSTACK_TOKEN": "t"}
    folder = project(
        tmp_path / "p",
        textwrap.dedent(f"""
        workflows:
          - name: page
            image: {python_image}
            commands:
              - head -c 3000000 /dev/urandom > file; sha256sum file
              - python3 -m http.server 8888 --bind 127.0.0.1 2>&1 & python3 echo.py
            ports: [8888]
          - name: bare
            image: {busybox}
            commands: ['echo bare > index.html', 'busybox httpd -f -p 127.0.0.1:80']
        """),
    )
    (folder / "echo.py").write_text(ECHO)
    taken = socket.create_server(("127.0.0.1", 8888))
    with taken:
        run = Follower(dstack_home, folder, "run", "page", "--name", "shown", "-p", "9000", "--no-cache")
        followers.append(run)
        page, echo = run.port(8888), run.port(9000)

        # then the taken port is named
        assert page != 8888
        assert f"port 8888 of this machine is taken; using {page} instead" in run.said.decode()

    # and pages and files come through, several at once, and WebSockets
    until(lambda: served(page) and served_socket(echo), "the servers answer", 120)
    expected = cli("logs", "shown").stdout.split()[0]
    sums: list[str] = []
    threads = [
        threading.Thread(target=lambda: sums.append(hashlib.sha256(fetched(page, "/file")).hexdigest()))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums == [expected] * 5
    assert web_socket(echo, ["one", "two", "three" * 20]) == ["one", "two", "three" * 20]

    # a tunnel ends with its command, never with the job
    run.close()
    assert not served(page)
    assert json.loads(cli("runs", "shown", "--json").stdout)["status"] == "running"

    # attach follows again, with a port of its own
    local = free_port()
    again = Follower(dstack_home, folder, "attach", "shown", "-p", f"{local}:9000")
    followers.append(again)
    assert again.port(9000) == local
    assert web_socket(local, ["again"]) == ["again"]
    nothing = Follower(dstack_home, folder, "attach", "shown", "-p", "1234")
    followers.append(nothing)
    assert not served(nothing.port(1234))
    until(lambda: b"nothing listens on port 1234 in the container of page" in nothing.said, "it is said", 60)
    assert cli("stop", "shown", "--abort", "-y").returncode == 0
    assert again.process.wait(120) == 143

    # an image with busybox alone
    bare = Follower(dstack_home, folder, "run", "bare", "-p", f"{free_port()}:80")
    followers.append(bare)
    web = bare.port(80)
    until(lambda: served(web), "the page is there", 120)
    assert fetched(web) == b"bare\n"
    assert cli("stop", "--all", "--abort", "-y").returncode == 0


def served_socket(port: int) -> bool:
    try:
        return web_socket(port, ["x"]) == ["x"]
    except (OSError, AssertionError, struct.error):
        return False


def test_what_is_refused_before_anything_is_submitted(cli: Cli, runner: str, tmp_path: Path, busybox: str) -> None:
    folder = project(tmp_path / "p", f"workflows: [{{name: job, image: {busybox}, commands: [ls]}}]")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        done = cli("run", "job", "-p", f"{number}:80", cwd=folder)
    assert (done.returncode, f"port {number} of this machine is taken" in done.stderr) == (2, True)
    assert cli("run", "job", "-p", "http", cwd=folder).returncode == 2
    assert cli("run", "job", "-d", "-p", "80", cwd=folder).returncode == 2
    assert json.loads(cli("runs", "--json").stdout) == []
