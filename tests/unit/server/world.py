"""The whole HTTP application over a real store, without an engine that runs and without machines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from msgspec.structs import replace
from starlette.types import ASGIApp

from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.sampling import Sampler
from dstack.engine.notify.notifier import Notifier
from dstack.engine.retention.retention import Retention
from dstack.engine.sweeps.sweeps import SweepDrives
from dstack.engine.triggers.loop import TriggerLoop
from dstack.errors import HostUnreachableError
from dstack.hosts.pool import Pool
from dstack.model.code.snapshot import Snapshot
from dstack.model.paths import ServerLayout
from dstack.server.access import Access
from dstack.server.app import application, table
from dstack.server.border.listener import Border
from dstack.server.border.names import OwnNames
from dstack.server.endpoints import problem_response
from dstack.server.registrations import RegistrationService
from dstack.server.roles import Allowed
from dstack.server.runners.runner_service import RunnerService
from dstack.server.web.app import WebPages
from dstack.server.web.port import WebPort
from dstack.store.store import Store
from tests.unit.store.test_store import job, run

TOKEN = "t"
JOB = "0123456789ab"
SECONDS = 20.0


async def unserved(listening: object) -> Any:
    """Serve nothing on a socket: a test must not open a port."""
    raise AssertionError("no port is opened here")


class NoMachines:
    """Stands for all machines: none can be reached. A test must not connect to where a random address leads."""

    answered = None

    def __getattr__(self, name: str) -> Any:
        async def unreachable(*given: object, **named: object) -> None:
            raise HostUnreachableError("no machine here")

        return unreachable


class NoPool(Pool):
    dialer = NoMachines()  # type: ignore[assignment]

    def get(self, runner: object) -> Any:
        return NoMachines()


class World:
    """The whole application over a real store, without an engine that runs."""

    def __init__(self, folder: Path, base: str = "") -> None:
        self.folder = folder
        layout = ServerLayout(folder)
        self.store = Store(layout)
        self.store.runs.add(replace(run("known"), snapshot=Snapshot(repo="r", tree="0" * 40)))
        self.store.jobs.add(job(JOB, "known"))
        self.store.tokens.share(TOKEN)
        fleet = Fleet(self.store, NoPool(), lambda: None)
        context = Context(layout=layout, store=self.store, fleet=fleet, events=Events())
        engine = Engine(context)
        machines = RegistrationService(RunnerService(engine, Sampler(self.store, fleet)))
        retention, synced = Retention(context), self.store.database.synced
        self.web = WebPages(engine, retention, machines.runner_service, synced)
        port = WebPort(self.web.sessions, context.tasks, "", unserved, lambda: 0.0)
        drives, notifier, loop = SweepDrives(context, engine), Notifier(context), TriggerLoop(context, engine)
        self.routes = table(engine, retention, machines, drives, notifier, loop, "", lambda: None, port.link)
        self.engine = engine
        app = application(self.routes, synced, self.web.routes(), self.web.site.missing)
        access = Access(app, self.store.tokens, Allowed(), problem_response, self.web.sessions.find)
        self.app: ASGIApp = Border(OwnNames(), base).around(access)

    async def ask(
        self, method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> tuple[int, bytes]:
        """Return the status and the body of the answer. A stream is left after a moment."""
        status, _, answer = await self.exchange(method, path.decode(errors="replace"), query, headers, body)
        return status, answer

    async def answer(
        self, method: str, path: str, query: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body of the answer."""
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        status, sent, answer = await self.exchange(method, unquote(path), query.encode(), raw, body)
        return status, {name.decode(): value.decode() for name, value in sent}, answer

    async def exchange(
        self, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Return the status, the headers and the body of the answer. A stream is left after a moment."""
        scope = {"type": "http", "method": method, "path": path, "query_string": query}
        scope |= {"headers": headers, "server": ("127.0.0.1", 1), "client": ("127.0.0.1", 2), "scheme": "http"}
        sent: list[dict[str, Any]] = []
        given = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            if (message := next(given, None)) is None:
                await asyncio.sleep(0.02)
                return {"type": "http.disconnect"}
            return message

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(self.app(scope, receive, send), SECONDS)
        return sent[0]["status"], sent[0]["headers"], b"".join(message.get("body", b"") for message in sent[1:])

    def call(self, method: str, path: str, body: Any = None, token: str | None = TOKEN) -> tuple[int, Any]:
        """Send a request over TCP, and return the status and the document of the answer."""
        headers = [(b"host", b"127.0.0.1"), *([(b"authorization", f"Bearer {token}".encode())] if token else [])]
        where, _, query = path.partition("?")
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer = asyncio.run(self.ask(method, f"/v1{where}".encode(), query.encode(), headers, data))
        try:
            return status, json.loads(answer)
        except ValueError:
            return status, answer
