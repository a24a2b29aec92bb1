"""The HTTP client with a fake server, and how it starts the embedded server."""

from __future__ import annotations

import http.client
import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dstack import __version__
from dstack.client import client as client_module
from dstack.client import connection, embedded
from dstack.client.client import Client
from dstack.client.connection import BrokenAnswerError, problem
from dstack.client.frames import Frame, read_frames
from dstack.client.settings import Endpoint
from dstack.errors import (
    ConflictError,
    DstackError,
    ErrorCode,
    MissingBaseError,
    NotFoundError,
    ProjectError,
    StateBusyError,
    TryAgainError,
    UnauthorizedError,
    UnknownHostKeyError,
    UsageError,
)
from dstack.model.api.events import EventQuery
from dstack.model.api.jobs import StopRequest
from dstack.model.api.runs import Event
from dstack.model.api.server import API, Problem
from tests.unit.cli.conftest import ROOT
from tests.unit.cli.fake_server import State, event_view, job_view, run_view, serving

JOB = "0123456789ab"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="ds-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def state() -> State:
    state = State()
    state.hold(run_view("brave-otter-7", [job_view(JOB, "train")]), {JOB: bytes(range(256)) * 8})
    return state


@pytest.fixture
def client(state: State) -> Iterator[Client]:
    """A client over TCP."""
    with serving(state) as address:
        yield Client(Endpoint.parse(address))


def read(client: Client, ref: str = "brave-otter-7", offsets: dict[str, int] | None = None) -> bytes:
    """Return the log bytes of a stream."""
    data, known = b"", {} if offsets is None else offsets
    for frame in client.follow(ref, known):
        if frame.event.event == "log":
            data += frame.data
            known[frame.event.id or ""] = (frame.event.offset or 0) + len(frame.data)
    return data


def test_follows_over_a_stream_that_breaks_anywhere(client: Client, state: State) -> None:
    state.cuts = [0, 1, 333, 600, 601, 5000]

    assert read(client) == bytes(range(256)) * 8
    assert state.cuts == []


def test_goes_on_from_where_the_caller_is(client: Client) -> None:
    assert read(client, JOB, {JOB: 2040}) == bytes(range(248, 256))


def test_gives_up_a_stream_that_stays_broken(client: Client, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PATIENCE_SECONDS", 0.2)
    state.cuts = [0] * 100

    with pytest.raises(DstackError, match="gave up after 0 minutes: the connection to the server broke") as raised:
        read(client)

    assert raised.value.exit_code == 125
    assert "dstack wait brave-otter-7" in (raised.value.hint or "")


def test_a_broken_question_is_asked_again_but_nothing_else(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
        listening.listen()
        hangs_up = Client(Endpoint(str(folder / "s")))
        taken = []

        def hang_up(times: int) -> None:
            for _ in range(times):
                connection, _ = listening.accept()
                taken.append(connection.recv(1000)[:4])
                connection.close()

        thread = threading.Thread(target=hang_up, args=(3,))
        thread.start()
        with pytest.raises(TryAgainError, match="broke"):
            hangs_up.status()
        with pytest.raises(BrokenAnswerError, match="broke"):
            hangs_up.shutdown()
        thread.join()

    assert taken == [b"GET ", b"GET ", b"POST"]


def test_follows_events_over_a_stream_that_breaks_anywhere(client: Client, state: State) -> None:
    state.events = [event_view(number, "job.running") for number in range(1, 30)]
    state.cuts = [0, 1, 333, 600, 601]

    assert list(client.follow_events(EventQuery(limit=50))) == state.events
    assert state.cuts == []
    assert [query.get("after") for query in state.event_queries][:3] == ["0", "0", "0"]
    assert {query["limit"] for query in state.event_queries} == {"50"}


def test_says_who_asks(client: Client, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "zoë")

    client.status()

    assert state.actors == ["zo%C3%AB"]


def test_sends_its_token(client: Client, state: State) -> None:
    state.token = "secret"

    with pytest.raises(UnauthorizedError):
        client.status()

    assert Client(Endpoint(client.endpoint.url, token="secret")).status().runs == 2


def test_what_is_not_a_dstack_server() -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404 if "status" in self.path else 503)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        other = Client(Endpoint(f"http://127.0.0.1:{server.server_address[1]}"))
        with pytest.raises(DstackError, match="not a dstack server"):
            other.status()
        with pytest.raises(TryAgainError, match="503"):
            other.config()
        server.shutdown()


def test_what_does_not_speak_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
                connection.recv(1 << 16)

        greeting = threading.Thread(target=greet)
        greeting.start()
        with pytest.raises(DstackError, match="is not a dstack server") as refused:
            Client(Endpoint(f"http://127.0.0.1:{server.getsockname()[1]}")).status()
        greeting.join()

    assert not isinstance(refused.value, TryAgainError)


@pytest.mark.parametrize(("refusals", "after", "asked"), [(2, "1", 3), (9, "1", 3), (1, "60", 1)])
def test_a_busy_server_is_asked_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch, refusals: int, after: str, asked: int
) -> None:
    class Busy(BaseHTTPRequestHandler):
        bodies: ClassVar[list[bytes]] = []

        def do_POST(self) -> None:
            self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            refused = len(self.bodies) <= refusals
            problem = msgspec.json.encode(Problem(kind="StateBusyError", message="m", code="state-busy", exit_code=75))
            self.send_response(503 if refused else 200)
            for name, value in {
                "X-Dstack-Version": __version__,
                "X-Dstack-Api": str(API),
                "Retry-After": after,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(problem if refused else b"[]")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing to tell."""

    monkeypatch.setattr(connection, "BUSY_SECONDS", 2.9)
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        client = Client(Endpoint(f"http://127.0.0.1:{server.server_address[1]}"))
        if refusals == 2:
            assert client.stop(StopRequest(refs=("a",))) == []
        else:
            with pytest.raises(StateBusyError) as caught:
                client.stop(StopRequest(refs=("a",)))
            assert (caught.value.exit_code, caught.value.code) == (75, ErrorCode.STATE_BUSY)
        server.shutdown()
    assert Busy.bodies == [Busy.bodies[0]] * asked


@pytest.mark.parametrize(
    ("told", "kind", "code"),
    [
        (Problem(kind="NotFoundError", message="m", exit_code=2), NotFoundError, 2),
        (Problem(kind="ConflictError", message="m", exit_code=2), ConflictError, 2),
        (Problem(kind="TryAgainError", message="m", exit_code=75), TryAgainError, 75),
        (Problem(kind="missing-base", message="m"), MissingBaseError, 125),
        (Problem(kind="host-key", message="m", fingerprint="SHA256:x"), UnknownHostKeyError, 125),
        (Problem(kind="CommandError", message="m"), DstackError, 125),
        (Problem(kind="Sequence", message="m", exit_code=2), UsageError, 2),
        (Problem(kind="ProjectError", message="a\nb", exit_code=2), ProjectError, 2),
    ],
)
def test_problems_are_the_servers_errors(told: Problem, kind: type[DstackError], code: int) -> None:
    error = problem(400, msgspec.json.encode(told))

    assert type(error) is kind
    assert error.exit_code == code
    assert error.message == told.message


def test_a_problem_that_makes_no_sense() -> None:
    assert "status 500: <html>" in problem(500, b"<html>").message


@pytest.mark.parametrize("text", ["ftp://x", "host:80", "http://", "http://h:x", "relative/path", ""])
def test_no_addresses(text: str) -> None:
    with pytest.raises(UsageError):
        Endpoint.parse(text)


def test_addresses() -> None:
    assert Endpoint.parse("unix:///run/s") == Endpoint("/run/s")
    assert Endpoint.parse("https://h/dstack/", "t") == Endpoint("https://h/dstack", "t")
    assert Endpoint.parse("http://h:1/dstack/").prefix == "/dstack"
    assert Endpoint.parse("/s").prefix == ""


class Pieces(io.BufferedIOBase):
    """A stream that comes in pieces and then ends or breaks."""

    def __init__(self, data: bytes, size: int) -> None:
        self._stream = io.BytesIO(data)
        self._size = size

    def read1(self, size: int = -1, /) -> bytes:
        return self._stream.read(min(size, self._size))


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 40), st.integers(0, 400))
def test_frames_come_whole_or_not_at_all(logs: list[bytes], size: int, end: int) -> None:
    sent = [Frame(Event(event="log", id=JOB, workflow="w", offset=0, bytes=len(log) or None), log) for log in logs]
    parts = [msgspec.json.encode(frame.event) + b"\n" + frame.data for frame in sent]
    whole = b"".join(parts)
    ends = {sum(map(len, parts[:count])): count for count in range(len(parts), -1, -1)}

    got: list[Frame] = []
    broken = False
    try:
        got.extend(read_frames(Pieces(whole[:end], size)))
    except http.client.IncompleteRead:
        broken = True

    assert broken == (end < len(whole) and end not in ends)
    if not broken:
        assert got == sent[: ends[min(end, len(whole))]]


def test_what_the_caller_has_is_left_out() -> None:
    frame = Frame(Event(event="log", id=JOB, offset=10, bytes=4), b"abcd")

    assert frame.after({}) is frame
    assert frame.after({JOB: 10}) is frame
    part = frame.after({JOB: 12})
    assert part is not None
    assert (part.data, part.event.offset, part.event.bytes) == (b"cd", 12, 2)
    assert frame.after({JOB: 14}) is None


# The embedded server


def test_home_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DSTACK_HOME", raising=False)
    monkeypatch.delenv("HOME")
    assert embedded.home() == Path(os.path.expanduser("~")) / ".dstack"
    monkeypatch.setenv("DSTACK_HOME", "rel")
    assert embedded.home() == Path.cwd() / "rel"


def test_a_long_path_gets_a_short_socket_in_a_folder_of_ones_own(folder: Path) -> None:
    short, long = folder / "h", folder / ("x" * 100)

    assert embedded.socket_path(short) == short / "server" / "socket"
    path = embedded.socket_path(long)
    try:
        assert path.parent.name.startswith(f"dstack-{os.getuid()}-")
        assert path.parent.stat().st_mode & 0o777 == 0o700
        path.parent.chmod(0o777)
        with pytest.raises(DstackError, match="must belong to you alone"):
            embedded.socket_path(long)
    finally:
        path.parent.rmdir()


STARTER = """
import sys
from pathlib import Path
from dstack.client import embedded
embedded.command = lambda home, arguments=(): [sys.executable, "-m", "tests.unit.cli.fake_server", "--home", str(home)]
{code}
"""
RUNS = """
client = embedded.connect(Path(sys.argv[1]))
print(client.run("brave").name, client.status().pid)
"""


def starting(folder: Path, code: str, **environment: str) -> subprocess.Popen[str]:
    """Start a process that uses the embedded server of `folder/h`, which is the fake one."""
    known = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    words = [sys.executable, "-c", STARTER.format(code=code), str(folder / "h")]
    return subprocess.Popen(words, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_many_at_once_start_one_server(folder: Path) -> None:
    processes = [starting(folder, RUNS) for _ in range(5)]
    answers = [process.communicate(timeout=60) for process in processes]
    home = folder / "h"
    try:
        assert {error for _, error in answers} == {""}
        assert len({out for out, _ in answers}) == 1
        assert len((home / "starts").read_text().split()) == 1
        assert home.stat().st_mode & 0o777 == 0o700
        assert (home / "server" / "server.log").stat().st_mode & 0o777 == 0o600
    finally:
        Client(embedded.endpoint(home)).shutdown()


def test_a_server_that_dies_at_once_says_why(folder: Path) -> None:
    process = starting(folder, RUNS, FAKE_SERVER='{"dies": true}')

    _, error = process.communicate(timeout=60)

    assert "StartError: the dstack server did not start: the disk is full" in error


def test_a_server_that_can_say_why_it_does_not_start(folder: Path) -> None:
    with pytest.raises(embedded.StartError, match="DSTACK_IDLE_EXIT: 'never' is not a number") as refused:
        embedded.start(folder / "h", environment={"DSTACK_IDLE_EXIT": "never"})

    assert (refused.value.code, refused.value.exit_code) == (ErrorCode.SERVER_NOT_STARTED, 2)


def test_a_home_that_can_not_be_made(folder: Path) -> None:
    (folder / "file").write_text("")

    with pytest.raises(embedded.StartError, match=r"dstack's files can't be in .*: not a directory") as refused:
        embedded.start(folder / "file" / "h")

    assert "DSTACK_HOME" in (refused.value.hint or "")


def test_a_database_that_can_not_be_opened(folder: Path) -> None:
    (folder / "h" / "server" / "state.db").mkdir(parents=True)

    with pytest.raises(embedded.StartError, match=r"did not start: .*/state.db can't be used: is a directory"):
        embedded.start(folder / "h")


def test_a_socket_that_nobody_serves_is_no_server(folder: Path) -> None:
    home = folder / "h"
    (home / "server").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(home / "server" / "socket"))
    assert not embedded.answers(home)

    out, error = starting(folder, RUNS).communicate(timeout=60)

    Client(embedded.endpoint(home)).shutdown()
    assert (out.split()[0], error) == ("brave-otter-7", "")


FOLLOWS = """
import os, signal
client = embedded.connect(Path(sys.argv[1]))
os.kill(client.status().pid, signal.SIGKILL)
data, known = b"", {}
for frame in client.follow("brave-otter-7", known):
    data += frame.data
print(data)
"""


def test_a_server_that_was_killed_is_started_again(folder: Path) -> None:
    out, error = starting(folder, FOLLOWS).communicate(timeout=60)

    Client(embedded.endpoint(folder / "h")).shutdown()
    assert (out, error) == ("b'hello\\n'\n", "")
    assert len((folder / "h" / "starts").read_text().split()) == 2
