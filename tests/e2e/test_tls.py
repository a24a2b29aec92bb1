"""TLS between the command line and a team's server: who is trusted, and what a wrong setting leads to."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environment.certificates import Authority
from tests.environment.product import Home
from tests.environment.sshd import free_port

TOKEN = "the-servers-token"


class Served:
    """A server with a certificate for 127.0.0.1, and its home."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.home, self.port = Home(), free_port()
        self.certificate, self.key = self.authority.issue("127.0.0.1")
        self.url = f"https://127.0.0.1:{self.port}"

    def start(self, *options: str | Path) -> subprocess.CompletedProcess[str]:
        known = ("--port", str(self.port), "--tls-cert", self.certificate, "--tls-key", self.key)
        return self.home.run("server", "start", *known, *options, env={"DSTACK_TOKEN": TOKEN})

    def status(self, url: str, ca: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {"DSTACK_SERVER_URL": url, "DSTACK_TOKEN": TOKEN}
        environment |= {"DSTACK_TLS_CA": str(ca)} if ca else {}
        return self.home.run("server", "status", "--json", env=environment)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("tls"))
    started = made.start()
    assert started.returncode == 0, started.stderr
    assert started.stdout + started.stderr == f"the server is running at {made.url}\n"
    yield made
    made.home.close()


def test_a_server_of_a_private_authority_is_reached_with_its_certificate(served: Served) -> None:
    status = served.status(served.url, served.authority.file)

    assert json.loads(status.stdout)["url"] == served.url
    assert served.home.run("server", "status").returncode == 0  # the owner's socket needs none


def test_the_authority_can_be_saved_for_the_saved_url(served: Served, dstack_home: Home) -> None:
    saved = dstack_home.run("config", "--url", served.url, "--token", TOKEN, "--tls-ca", served.authority.file)
    assert saved.returncode == 0, saved.stderr

    assert json.loads(dstack_home.run("server", "status", "--json").stdout)["url"] == served.url
    assert json.loads(dstack_home.run("config", "--json").stdout)["tls_ca"] == str(served.authority.file)
    elsewhere = dstack_home.run("runs", env={"DSTACK_SERVER_URL": f"{served.url}/"})
    assert "can't be trusted" in elsewhere.stderr

    removed = dstack_home.run("config", "--tls-ca", "")
    assert (removed.returncode, "can't be trusted" in removed.stderr) == (125, True)
    assert dstack_home.run("server", "status").returncode == 125


def test_an_unknown_authority_is_not_trusted(served: Served, tmp_path: Path) -> None:
    for ca in (None, Authority(tmp_path, "another").file):
        status = served.status(served.url, ca)

        assert status.returncode == 125
        error = json.loads(status.stderr)["error"]
        assert error["code"] == "certificate"
        assert error["message"].startswith(f"the certificate of {served.url} can't be trusted: ")
        assert "nothing was sent" in error["message"]
        assert error["hint"].endswith("dstack config --tls-ca FILE")


def test_a_certificate_for_another_name_is_not_trusted(served: Served) -> None:
    status = served.status(f"https://localhost:{served.port}", served.authority.file)

    assert json.loads(status.stderr)["error"]["code"] == "certificate"
    assert "localhost" in json.loads(status.stderr)["error"]["message"]


def test_http_where_the_server_uses_tls(served: Served) -> None:
    status = served.status(f"http://127.0.0.1:{served.port}")

    error = json.loads(status.stderr)["error"]
    assert (status.returncode, error["code"]) == (2, "wrong-scheme")
    assert error["hint"] == f"dstack config --url {served.url}"


def test_https_where_the_server_does_not_use_tls(served: Served) -> None:
    plain = Home()
    try:
        port = free_port()
        assert plain.run("server", "start", "--port", str(port), env={"DSTACK_TOKEN": TOKEN}).returncode == 0

        status = served.status(f"https://127.0.0.1:{port}", served.authority.file)

        error = json.loads(status.stderr)["error"]
        assert (status.returncode, error["code"]) == (2, "wrong-scheme")
        assert error["hint"] == f"dstack config --url http://127.0.0.1:{port}"
    finally:
        plain.close()


def test_connections_that_never_shake_hands_lock_nobody_out(served: Served) -> None:
    idle = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(600)]
    began = time.monotonic()

    assert served.home.run("server", "status").returncode == 0
    assert served.status(served.url, served.authority.file).returncode == 0

    assert time.monotonic() - began < 10
    for connection in idle:
        connection.close()


def test_curl_and_dstack_runner_come_by_https(served: Served, tmp_path: Path) -> None:
    asked = ["curl", "-fsS", "--cacert", str(served.authority.file), f"{served.url}/dstack-runner"]

    program = subprocess.run(asked, capture_output=True, text=True, check=True).stdout

    assert f'SERVER = "{served.url}"' in program
    (tmp_path / "runner.py").write_text(program)
    offer = [sys.executable, tmp_path / "runner.py", "--once"]
    known = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DSTACK_TOKEN": "wrong"}
    errors = [
        subprocess.run(offer, capture_output=True, text=True, env={**known, **more}).stderr
        for more in ({}, {"DSTACK_TLS_CA": str(served.authority.file)})
    ]
    assert errors[0].startswith(f"dstack-runner: error: the certificate of {served.url} can't be trusted")
    assert "token is invalid" in errors[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tls-key", "k"], "--tls-key needs --tls-cert"),
        (["--tls-cert", "c"], "--tls-cert needs --port"),
        (["--port", "0", "--tls-cert", "/missing"], "/missing can't be read: No such file or directory"),
        (["--port", "0", "--tls-cert", "/etc/passwd"], "the certificate /etc/passwd can't be used"),
        (["--port", "0", "--base-path", "a b"], "--base-path: 'a b' is not a path"),
        (["--base-path", "a"], "--base-path needs --port"),
    ],
)
def test_options_that_do_not_fit_are_refused(dstack_home: Home, options: list[str], message: str) -> None:
    started = dstack_home.run("server", "start", *options, env={"DSTACK_TOKEN": TOKEN})

    assert started.returncode == 2, started.stderr
    assert message in started.stderr
    assert "Traceback" not in started.stderr
    for line in started.stderr.splitlines():
        if line.startswith("hint: dstack "):
            assert shlex.split(line)[1:4] == ["dstack", "server", "start"]
