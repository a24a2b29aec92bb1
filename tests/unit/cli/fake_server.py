"""A fake API server that answers from a prepared state. `follow` can be cut off and held back."""

from __future__ import annotations

import argparse
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from dstack import __version__
from dstack.client.embedded import socket_path
from dstack.model.api.artifacts import ArtifactView, FolderView, LinksView, TagView
from dstack.model.api.events import EventView
from dstack.model.api.jobs import ArtifactsView, CacheView, HoldAnswer, HoldRequest, JobView, StopRequest
from dstack.model.api.results.compare import Comparison
from dstack.model.api.results.metrics import JobSeries
from dstack.model.api.retention import DeleteRequest, Removed
from dstack.model.api.runners import AddRunner, RunnerView
from dstack.model.api.runs import Event, Plan, PlannedJob, RepoView, RunView, Submission
from dstack.model.api.server import API, Problem, SecretView, ServerConfig, ServerStatus
from dstack.model.code.tree import Change
from dstack.model.job.status import Phase, Status
from dstack.model.runner.metrics import JobMetrics, Point
from dstack.model.runner.runner import Gpu

BEGAN = "2026-01-31T12:00:00.000Z"
ENDED = "2026-01-31T12:01:12.000Z"


def job_view(job: str, workflow: str, run: str = "brave-otter-7", **changes: Any) -> JobView:
    """Return a finished job, with `changes`."""
    status = changes.get("status", Status.DONE)
    values: dict[str, Any] = {
        "id": job,
        "run": run,
        "workflow": workflow,
        "status": status,
        "phase": Phase.ENDED if status.finished else Phase(status.value.replace("preparing", "starting")),
        "progress": None,
        "exit_code": 0,
        "reason": None,
        "reason_code": None,
        "cached": False,
        "cached_from": None,
        "cache": CacheView(False, "no earlier run of it"),
        "runner": "lab1",
        "gpus": [],
        "image": "busybox",
        "image_digest": None,
        "attempt": 1,
        "submitted_at": BEGAN,
        "started_at": BEGAN,
        "finished_at": ENDED,
        "artifacts": ArtifactsView(0, 0),
    }
    return JobView(**{**values, **changes})


def run_view(name: str, jobs: list[JobView], **changes: Any) -> RunView:
    """Return a finished run, with `changes`."""
    values: dict[str, Any] = {
        "name": name,
        "workflow": jobs[-1].workflow,
        "user": "ada",
        "status": Status.DONE,
        "exit_code": 0,
        "reason": None,
        "reason_code": None,
        "submitted_at": BEGAN,
        "finished_at": ENDED,
        "repo": RepoView(url="https://example.org/r", branch="main", commit="c0ffee" * 6 + "c0ff", dirty=True),
        "variables": {"model": "124M", "seed": "null"},
        "jobs": jobs,
    }
    return RunView(**{**values, **changes})


def runner_view(name: str, **changes: Any) -> RunnerView:
    """Return a ready runner, with `changes`."""
    values: dict[str, Any] = {
        "name": name,
        "address": f"ada@{name}",
        "state": "ready",
        "reason": None,
        "fix": None,
        "labels": ["a100"],
        "cpus": 16,
        "memory": 64 * 1024**3,
        "gpus": [Gpu(index=0, name="A100"), Gpu(index=1, name="A100")],
        "disk_free": 10**12,
        "jobs": [],
        "latency_ms": 3.4,
    }
    return RunnerView(**{**values, **changes})


def event_view(number: int, kind: str, **changes: Any) -> EventView:
    """Return an event, with `changes`."""
    values: dict[str, Any] = {"time": BEGAN, "actor": "ada", "run": None, "job": None, "runner": None, "data": {}}
    return EventView(id=number, kind=kind, **{**values, **changes})


class State:
    """What the fake server answers from, and the requests it got."""

    def __init__(self) -> None:
        self.runs: dict[str, RunView] = {}
        self.logs: dict[str, bytes] = {}
        self.artifacts: list[ArtifactView] = []
        self.folders: list[FolderView] = []
        self.files: dict[tuple[str, str], bytes] = {}
        self.runners: dict[str, RunnerView] = {}
        self.storage = "/srv/artifacts"
        self.version, self.api = __version__, API
        self.token: str | None = None
        self.problems: dict[str, list[Problem]] = {}
        """By `METHOD /path`: what is answered first instead."""
        self.cuts: list[int] = []
        """After how many bytes each follow stream (then each file) breaks."""
        self.held = threading.Event()
        """Set: follow streams may end."""
        self.held.set()
        self.following = threading.Event()
        self.requests: list[str] = []
        self.submissions: list[tuple[Submission, bytes]] = []
        self.stops: list[StopRequest] = []
        self.added: list[AddRunner] = []
        self.deleted: list[str] = []
        self.events: list[EventView] = []
        self.event_queries: list[dict[str, str]] = []
        self.queries: list[dict[str, str]] = []
        """Of requests for runs, series and comparisons."""
        self.series: list[JobSeries] = []
        self.comparison = Comparison(runs=[], differs=[], best={})
        self.actors: list[str] = []
        self.chunk = 5

    def hold(self, run: RunView, logs: dict[str, bytes] | None = None) -> RunView:
        """Add a run and its logs."""
        self.runs[run.name] = run
        self.logs.update(logs or {})
        return run

    def jobs(self) -> list[JobView]:
        return [job for run in self.runs.values() for job in run.jobs]


class Handler(BaseHTTPRequestHandler):
    """Serves one request."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing."""

    def address_string(self) -> str:
        return "client"

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        self.parts = urlsplit(self.path)
        self.asked = {name: values[0] for name, values in parse_qs(self.parts.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        route = f"{self.command} {self.parts.path.removeprefix('/v1')}"
        self.state.requests.append(route)
        self.state.actors.append(self.headers["X-Dstack-User"])
        assert self.headers["X-Dstack-Version"] or route == "GET /status"
        if self.state.token and self.headers["Authorization"] != f"Bearer {self.state.token}":
            self._problem(401, Problem(kind="UnauthorizedError", message="the server requires a token", exit_code=2))
        elif self.state.problems.get(route):
            self._problem(409, self.state.problems[route].pop(0))
        else:
            self._route(route.split("/", 1)[0].strip(), [unquote(part) for part in route.split("/")[1:]])

    def _route(self, method: str, path: list[str]) -> None:  # noqa: PLR0915
        state = self.state
        if path == ["status"]:
            status = ServerStatus(
                pid=os.getpid(),
                url="here",
                version=state.version,
                api=state.api,
                started_at=BEGAN,
                runs=2,
                home="/h",
            )
            self._json(status)
        elif path == ["runs"] and method == "POST":
            self._submit()
        elif path == ["runs"]:
            state.queries.append(self.asked)
            self._json(list(state.runs.values()))
        elif path[0] == "series":
            state.queries.append(self.asked)
            self._json(state.series)
        elif path == ["compare"]:
            state.queries.append(self.asked)
            self._json(state.comparison)
        elif path == ["runs", "delete"] and method == "POST":
            state.deleted += msgspec.json.decode(self.body, type=DeleteRequest).refs
            self._json(
                [Removed(run=ref, workflow="train", submitted_at=BEGAN, bytes=0, kept=[]) for ref in state.deleted]
            )
        elif path == ["tags"] and method == "GET":
            self._json(
                [TagView(name="best", run="brave-otter-7", job="0123456789ab", workflow="train", created_at=BEGAN)]
            )
        elif path[0] in ("runs", "jobs") and len(path) == 2:
            self._one({**state.runs} if path[0] == "runs" else {job.id: job for job in state.jobs()}, path[1])
        elif path == ["jobs"]:
            self._json(state.jobs())
        elif path[0] == "follow":
            self._follow(path[1])
        elif path == ["events"]:
            self._events()
        elif path == ["hold"]:
            asked = msgspec.json.decode(self.body, type=HoldRequest)
            jobs = {run.name: [job.id for job in run.jobs] for run in state.runs.values() if run.name in asked.refs}
            self._json(HoldAnswer(changed=jobs, unchanged=[ref for ref in asked.refs if ref not in jobs]))
        elif path == ["secrets"]:
            self._json([SecretView(name="WANDB_API_KEY", set_at=BEGAN)])
        elif path[0] == "metrics":
            points = [Point(time=1769860800, cpu=1.5, memory=2**20)]
            self._json([JobMetrics(job="0123456789ab", workflow="train", runner="lab1", points=points)])
        elif path == ["stop"]:
            state.stops.append(msgspec.json.decode(self.body, type=StopRequest))
            state.held.set()
            self._json(list(state.runs.values()))
        elif path[0] == "artifacts" and path[2:] in ([], ["folders"]):
            listed: Sequence[Any] = state.folders if path[2:] else state.artifacts
            self._json([view for view in listed if path[1] in (view.job, *state.runs)])
        elif path[0] == "artifacts" and path[2] == "urls":
            self._json(LinksView(urls=[], expires_at=ENDED))
        elif path[0] == "artifacts":
            self._bytes(state.files[path[1], self.asked["path"]][int(self.asked["offset"]) :])
        elif path == ["runners"] and method == "POST":
            state.added.append(msgspec.json.decode(self.body, type=AddRunner))
            self._json(runner_view(state.added[-1].name or str(state.added[-1].address.host)))
        elif path == ["runners"]:
            self._json(list(state.runners.values()))
        elif method == "DELETE":
            self._one({name: {} for name in state.runners}, path[1])
        elif path[-1] == "check":
            self._one(state.runners, path[1])
        elif path[0] == "prune":
            self._json([])
        elif path == ["config"]:
            if method == "POST":
                state.storage = msgspec.json.decode(self.body, type=ServerConfig).storage
            self._json(ServerConfig(storage=state.storage))
        else:
            self._json({})
            threading.Thread(target=self.server.shutdown).start()

    def _submit(self) -> None:
        line, pack = self.body.split(b"\n", 1)
        submission = msgspec.json.decode(line, type=Submission)
        self.state.submissions.append((submission, pack))
        if submission.dry_run:
            run = next(iter(self.state.runs.values()))
            planned = PlannedJob(
                workflow="train",
                image="busybox",
                cached_from=None,
                cache=CacheView(False, "it is the one you named"),
                runner="lab1",
                reason=None,
                reason_code=None,
            )
            changes = [Change("train.py", "modified", 1200)]
            self._json(Plan(workflow="train", repo=run.repo, jobs=[planned], changes=changes, files=3, bytes=4096))
            return
        run = next(iter(self.state.runs.values()))
        queued = [
            msgspec.structs.replace(job, status=Status.QUEUED, exit_code=None, finished_at=None)
            if not job.cached
            else job
            for job in run.jobs
        ]
        self._json(msgspec.structs.replace(run, status=Status.QUEUED, jobs=queued, finished_at=None), 201)

    def _one(self, known: dict[str, Any], ref: str) -> None:
        found = [value for name, value in known.items() if name.startswith(ref)]
        if len(found) == 1:
            self._json(found[0])
        else:
            text = f"'{ref}' matches several" if found else f"nothing is called '{ref}'"
            code = "ambiguous-name" if found else "not-found"
            self._problem(404, Problem(kind="NotFoundError", message=text, code=code, exit_code=2))

    def _follow(self, ref: str) -> None:
        run = self.state.runs.get(ref)
        jobs = run.jobs if run else [job for job in self.state.jobs() if job.id == ref]
        offsets = {
            part.split(":")[0]: int(part.split(":")[1]) for part in self.asked.get("from", "").split(",") if part
        }
        self._bytes_of(self._frames(run, jobs, offsets))

    def _events(self) -> None:
        self.state.event_queries.append(self.asked)
        events = [event for event in self.state.events if event.id > int(self.asked.get("after", "0"))]
        if self.asked.get("follow") != "1":
            self._json(events)
            return
        self._bytes_of(_line(frame) for event in events for frame in (Event(event="ping"), event_frame(event)))

    def _frames(self, run: RunView | None, jobs: list[JobView], offsets: dict[str, int]) -> Iterator[bytes]:
        state = self.state
        for job in jobs:
            running = msgspec.structs.replace(job, status=Status.RUNNING, exit_code=None, finished_at=None)
            if not job.cached:
                yield _line(Event(event="job", job=running))
            log = state.logs.get(job.id, b"") if self.asked["logs"] == "1" else b""
            for start in range(offsets.get(job.id, 0), len(log), state.chunk):
                data = log[start : start + state.chunk]
                event = Event(event="log", id=job.id, workflow=job.workflow, offset=start, bytes=len(data), time=BEGAN)
                yield _line(event) + data
            yield _line(Event(event="ping"))
            state.following.set()
            while self.asked["follow"] == "1" and not state.held.wait(0.2):
                yield _line(Event(event="ping"))
            yield _line(Event(event="job", job=job))
        if run:
            yield _line(Event(event="run", run=run))

    def _bytes(self, data: bytes) -> None:
        self._bytes_of(data[start : start + 4096] for start in range(0, len(data), 4096))

    def _bytes_of(self, blocks: Iterator[bytes]) -> None:
        """Send the body in chunks, and cut it off where the test says."""
        self._head(200, ("Transfer-Encoding", "chunked"))
        left = self.state.cuts.pop(0) if self.state.cuts else None
        for block in blocks:
            if left is not None and len(block) >= left:
                self.wfile.write(b"%x\r\n" % len(block) + block[:left])
                self.close_connection = True
                return
            left = None if left is None else left - len(block)
            self.wfile.write(b"%x\r\n" % len(block) + block + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, value: Any, status: int = 200) -> None:
        body = msgspec.json.encode(value)
        self._head(status, ("Content-Length", str(len(body))))
        self.wfile.write(body)

    def _problem(self, status: int, problem: Problem) -> None:
        self._json(problem, status)

    def _head(self, status: int, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (("X-Dstack-Version", self.state.version), ("X-Dstack-Api", str(self.state.api)), *headers):
            self.send_header(name, value)
        self.end_headers()


def event_frame(entry: EventView) -> Event:
    """Return the frame of an event."""
    return Event(event="event", entry=entry)


def _line(event: Event) -> bytes:
    return msgspec.json.encode(event) + b"\n"


class UnixServer(ThreadingMixIn, UnixStreamServer):
    """The fake server on a unix socket."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: the tests do that on purpose."""


class TcpServer(ThreadingHTTPServer):
    """The fake server on TCP."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: the tests do that on purpose."""


@contextmanager
def serving(state: State, path: Path | None = None) -> Iterator[str]:
    """Serve on the unix socket `path`, or on a loopback port; yield the address."""
    handler = type("StateHandler", (Handler,), {"state": state})
    server = UnixServer(str(path), handler) if path else TcpServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield str(path) if path else f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        state.held.set()
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """Run the fake server as a process, started like the embedded server. FAKE_SERVER says what goes wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    home = parser.parse_args().home
    wish = json.loads(os.environ.get("FAKE_SERVER", "{}"))
    with (home / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if wish.get("dies"):
        raise SystemExit("the disk is full")
    path = socket_path(home)
    path.unlink(missing_ok=True)
    state = State()
    handler = type("StateHandler", (Handler,), {"state": state})
    state.hold(run_view("brave-otter-7", [job_view("0123456789ab", "train")]), {"0123456789ab": b"hello\n"})
    with UnixServer(str(path), handler) as server:
        server.serve_forever(poll_interval=0.01)
    path.unlink()


if __name__ == "__main__":
    main()
