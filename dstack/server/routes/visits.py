"""Looking into running jobs: a command in the container, and its ports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from dstack.commands.host import TerminalSize
from dstack.engine.engine import Engine
from dstack.engine.visit import Visit, visited
from dstack.errors import DstackError, ErrorCode, HostError, UsageError
from dstack.model.api.streams import ExecRequest, TerminalView
from dstack.model.job.execution import NO_PROGRAM, REFUSED
from dstack.model.job.job import Job
from dstack.server.endpoints import actor
from dstack.server.roles import require_own
from dstack.server.streams.relay import Relay
from dstack.server.streams.response import Accept, StreamResponse, require_upgrade
from dstack.store.lookup import jobs_named
from dstack.store.tables.events import acting

TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")
LARGEST = 10_000
"""Columns or rows of a terminal."""


@dataclass
class VisitRoutes:
    engine: Engine

    def enter(self, request: Request, ref: str, wish: ExecRequest) -> Response:
        """Run a command in the container, over the request's own connection."""
        require_upgrade(request)
        if any("\0" in word for word in wish.command):
            raise UsageError("a command can't contain a NUL byte")
        size, term = terminal_of(wish.terminal)
        job = self.job(ref)
        visit = Visit(self.engine.context, job)
        opened = visit.command(wish.command, size, term)
        who, about = actor(request), {"program": wish.command[0][:100] if wish.command else "a shell"}
        self.engine.store.jobs.note(job, "exec.started", visit=visit.id, terminal=size is not None, **about)

        async def serve(accept: Accept) -> None:
            code: int | None = None
            try:
                async with visit.opened(opened) as entered:
                    relay = Relay(accept(), entered)
                    code = await ended(relay, visit)
                    if code is not None:
                        await relay.say_end(code)
            finally:
                with acting(who):
                    self.note(job, "exec.ended", visit=visit.id, exit_code=code)

        return StreamResponse(serve)

    def forward(self, request: Request, ref: str, port: int) -> Response:
        """Connect to a port of the container, over the request's own connection."""
        require_upgrade(request)
        if not 1 <= port <= 65535:
            raise UsageError(f"{port} is not a valid port: ports are 1 to 65535")
        job = self.job(ref)
        visit = Visit(self.engine.context, job)

        async def serve(accept: Accept) -> None:
            async with visit.opened(visit.port(port)) as entered:
                relay = Relay(accept(), entered)
                code = await ended(relay, visit)
                if code is not None:
                    await relay.say_end(code, closed(job, port, code, passed=relay.passed))

        return StreamResponse(serve)

    def job(self, ref: str) -> Job:
        """Return the running job that is meant. Raises ForbiddenError if its run is another person's."""
        run, jobs, _ = jobs_named(self.engine.store, ref)
        require_own(run)
        return visited(jobs)

    def note(self, job: Job, kind: str, **data: Any) -> None:
        if self.engine.store.jobs.get(job.id) is not None:  # its run may have been deleted meanwhile
            self.engine.store.jobs.note(job, kind, **data)


async def ended(relay: Relay, visit: Visit) -> int | None:
    """Pass bytes on until the end; return the exit status, or None if the client left or the connection broke."""
    try:
        code = await relay.run()
    except DstackError as error:
        await relay.say_end(error.exit_code, error)
        return None
    visit.over = code is not None
    return code


def terminal_of(given: TerminalView | None) -> tuple[TerminalSize | None, str | None]:
    """Return the size of the client's terminal and its TERM. A terminal that tells no size gets the usual one."""
    if given is None:
        return None, None
    if not TERM.fullmatch(given.term):
        raise UsageError(f"{given.term!r} is not the name of a terminal", hint="TERM=xterm-256color dstack exec ...")
    columns, rows = (min(max(0, number), LARGEST) for number in (given.columns, given.rows))
    return TerminalSize(columns or 80, rows or 24), given.term


def closed(job: Job, port: int, code: int, *, passed: bool) -> HostError | None:
    """Return why a connection came to nothing, from the exit status of what connects; None if it did not."""
    if code == NO_PROGRAM:
        message = f"port {port} can't be forwarded: neither the image nor {job.runner} has python3, bash or nc"
        return HostError(message, hint="install one of them in the image", code=ErrorCode.PORT_CLOSED)
    if code == REFUSED or (code and not passed):
        message = f"nothing listens on port {port} in the container of {job.workflow}"
        return HostError(message, hint="it may still be starting; try again", code=ErrorCode.PORT_CLOSED)
    return None
