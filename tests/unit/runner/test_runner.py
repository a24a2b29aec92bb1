"""`dstack-runner` without a server: its Python, its unit, its times, its edits of authorized_keys."""

from __future__ import annotations

import ast
import contextlib
import datetime
import inspect
import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from dstack import runner
from dstack.commands.machine.authorize import authorize, marker
from dstack.commands.machine.uninstall import uninstall
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from tests.environment.product import program

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: SimpleNamespace(pw_dir=str(tmp_path)))
    return tmp_path


def test_it_is_python_3_8_and_one_file() -> None:
    source = inspect.getsource(runner)

    ast.parse(source, feature_version=(3, 8))
    assert "from __future__ import annotations" in source
    assert "import dstack" not in source
    assert "removeprefix" not in source


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--port 0", "'0' is not a number from 1 to 65535"),
        ("--port 22.5", "'22.5' is not a number from 1 to 65535"),
        ("--port 99999999999999999999", "is not a number from 1 to 65535"),
        ("--interval nan", "'nan' is not a number from 0 to 86400"),
        ("--interval 1e9", "'1e9' is not a number from 0 to 86400"),
        ("--interval=-1", "'-1' is not a number from 0 to 86400"),
    ],
)
def test_numbers_have_bounds(words: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        runner.parser().parse_args(words.split())

    assert ended.value.code == 2
    assert why in capsys.readouterr().err


def test_numbers_within_bounds() -> None:
    given = runner.parser().parse_args(["--port", "22", "--interval", "0.5"])

    assert (given.port, given.interval) == (22, 0.5)


def test_the_unit_runs_the_same_command() -> None:
    words = ["--server", "http://s:1", "--label", "a b", "--systemd"]
    done = subprocess.run([program("dstack-runner"), *words], capture_output=True, text=True, check=True)

    (line,) = [line for line in done.stdout.splitlines() if line.startswith("ExecStart=")]
    assert line == f"ExecStart={program('dstack-runner')} --server http://s:1 --label 'a b'"


def test_the_unit_of_a_runner_that_came_through_a_pipe(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(runner, "SERVER", "http://s:1")
    monkeypatch.setattr(sys, "argv", ["-"])

    lines = runner.systemd_unit(["--token", "secret", "--once", "--token=secret", "--systemd"]).splitlines()

    assert lines[0] == f"# curl -fsS http://s:1/dstack-runner -o {home}/dstack-runner"
    assert f"ExecStart={sys.executable} {home}/dstack-runner --once --server http://s:1" in lines
    assert "secret" not in "".join(lines)


@pytest.mark.parametrize("given", [["--server", "http://other:1"], ["--server=http://other:1"]])
def test_a_unit_keeps_the_server_that_was_given(monkeypatch: pytest.MonkeyPatch, given: list[str]) -> None:
    monkeypatch.setattr(runner, "SERVER", "http://s:1")

    unit = runner.systemd_unit(given)

    (line,) = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert line.endswith(f" {' '.join(given)}")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gpu1", ("gpu1", None)),
        ("gpu1.lab:2222", ("gpu1.lab", 2222)),
        ("10.0.0.1:22", ("10.0.0.1", 22)),
        ("[2001:db8::1]:2222", ("2001:db8::1", 2222)),
        ("[::1]", ("::1", None)),
        ("2001:db8::1", ("2001:db8::1", None)),
    ],
)
def test_an_address_may_have_its_port(text: str, parts: tuple[str, int | None]) -> None:
    assert runner.host_and_port(text) == parts


def test_times_of_day() -> None:
    now = datetime.datetime.now()
    soon = now + datetime.timedelta(minutes=2)

    assert 0 < runner.ends_at(soon.strftime("%H:%M")) - now.timestamp() <= 120
    assert runner.ends_at((now - datetime.timedelta(minutes=1)).strftime("%H:%M")) - now.timestamp() > 23 * 3600
    to_the_second = now.replace(microsecond=0) + datetime.timedelta(seconds=5)
    assert runner.ends_at(to_the_second.strftime("%H:%M:%S")) == to_the_second.timestamp()
    for text in ("25:99", "18", "6pm", "1:2:3:4", "18:00:"):
        with pytest.raises(runner.RunnerError, match=f"'{text}' is not a time of day"):
            runner.ends_at(text)


@pytest.mark.parametrize("before", [None, b"", b"ssh-rsa AAAA me", b"ssh-rsa AAAA me\n"])
def test_the_key_comes_and_goes_without_a_trace(home: Path, before: bytes | None) -> None:
    path = home / ".ssh" / "authorized_keys"
    if before is not None:
        path.parent.mkdir(0o750)
        path.write_bytes(before)
        path.chmod(0o640)

    runner.let_in(KEY, "5e12")
    runner.let_in(KEY, "5e12")

    lines = path.read_text().splitlines()
    assert next(line for line in lines if KEY in line).startswith(f"restrict,pty {KEY} dstack-server-5e12")
    assert len(lines) == (2 if before else 1)
    runner.let_out("5e12")
    if before is None:
        assert list(home.iterdir()) == []
    else:
        assert path.read_bytes() == before
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o640, 0o750)
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, b"ssh-rsa AAAA me", b"ssh-rsa AAAA me\n"])
def test_the_servers_script_does_the_same_and_takes_it_out(home: Path, before: bytes | None) -> None:
    path = home / ".ssh" / "authorized_keys"
    if before is not None:
        path.parent.mkdir(0o750)
        path.write_bytes(before)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}

    def run(script: str) -> None:
        subprocess.run(["sh", "-c", script], env=environment, check=True, capture_output=True)

    run(authorize(KEY, "5e12").script)
    by_script = path.read_bytes()
    run(uninstall(HostContext(HostLayout("~/.dstack-host", "", "5e12"), "no-docker-here")).script)
    assert (path.read_bytes() if path.exists() else None) == before
    runner.let_in(KEY, "5e12")
    assert path.read_bytes() == by_script
    assert marker("5e12") in path.read_text()
    run(uninstall(HostContext(HostLayout("~/.dstack-host", "", "5e12"), "no-docker-here")).script)

    assert (path.read_bytes() if path.exists() else None) == before
    assert sorted(home.iterdir()) == ([] if before is None else [path.parent])


def test_no_link_is_followed(home: Path) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.write_text("")
    (home / ".ssh").mkdir()
    (home / ".ssh" / "authorized_keys").symlink_to(elsewhere)

    with pytest.raises(runner.RunnerError, match="is a symbolic link, which is not followed"):
        runner.let_in(KEY, "5e12")
    assert elsewhere.read_text() == ""


def test_a_heartbeat_that_the_server_cannot_record_is_not_the_end() -> None:
    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(503)
            self.end_headers()
            self.wfile.write(b'{"message": "its state is locked", "exit_code": 75}')

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing to tell."""

    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        with pytest.raises(OSError, match="its state is locked"):
            runner.Server(f"http://127.0.0.1:{server.server_address[1]}", None).post("/registrations/box/heartbeat", {})
        server.shutdown()


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A web server that answers every request so; its URL."""

    class Same(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing to tell."""

    with HTTPServer(("127.0.0.1", 0), Same) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>"),
        (200, b"[]"),
        (200, b"null"),
        (200, b'{"ok": true}'),
        (400, b'"no"'),
        (301, b""),
        (200, b"\xff"),
    ],
)
def test_what_answers_is_no_server_of_dstack(status: int, body: bytes) -> None:
    with (
        answering(status, body) as url,
        pytest.raises(runner.RunnerError, match=r"is not a dstack server \(HTTP status"),
    ):
        runner.Server(url, None).post("/registrations", {}, "name")


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_whose_server_restarts_is_asked_again(status: int) -> None:
    with answering(status, b"<html>Bad Gateway</html>") as url, pytest.raises(OSError, match=f"HTTP status {status}"):
        runner.Server(url, None).post("/registrations", {}, "name")


def offered(tmp_path: Path, *words: str) -> tuple[int, str]:
    """Run dstack-runner to its end, with a home of its own."""
    key = tmp_path / "key.pub"
    key.write_text("ssh-ed25519 AAAA me\n")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DSTACK_TOKEN": "t"}
    asked = [program("dstack-runner"), *words, "--host-key", str(key), "--once"]
    done = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("address", [(), ("--address", "gpu1")])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid:80", "unix:///no/such/socket"])
def test_a_server_that_is_out_of_reach(tmp_path: Path, url: str, address: tuple[str, ...]) -> None:
    code, said = offered(tmp_path, "--server", url, *address)

    assert code == 75
    assert said.startswith(f"dstack-runner: error: can't reach the server at {url.removeprefix('unix://')}: ")
    assert "Traceback" not in said
    assert "[Errno" not in said


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:99999", "http://[::1", "http://", "http://a b:8", "http://h:0", "ftp://x", "http://h:port"],
)
def test_a_url_that_cannot_be_one(tmp_path: Path, url: str) -> None:
    hint = "hint: write --server http://HOST:PORT\n"

    assert offered(tmp_path, "--server", url) == (2, f"dstack-runner: error: '{url}' is not a valid server URL\n{hint}")
