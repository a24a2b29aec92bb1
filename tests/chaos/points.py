"""Named points in the server at which it can be killed: before and after each question to a host, each commit, and each
piece of a log.

The environment of a server says what happens there: `CHAOS_RECORD=FILE` appends the name of every point that is passed;
`CHAOS_FREEZE=NAME` stops its process at that point, for whoever cuts the power.
`CHAOS_KILL=FILE` kills the server when it comes by one of the points in that file, one per line, and takes the point
out of the file. Neither happens before the file `CHAOS_ARMED` exists. `CHAOS_CLOCK=FILE` adds the number of seconds in
that file, if it exists, to the server's clock.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def install() -> None:
    """Make the server's steps points, if the environment asks for it."""
    record, kill, freeze = (os.environ.get(f"CHAOS_{what}") for what in ("RECORD", "KILL", "FREEZE"))
    armed = os.environ.get("CHAOS_ARMED")
    if armed is None:
        return
    if clock := os.environ.get("CHAOS_CLOCK"):
        _shift_clock(Path(clock))

    def reached(point: str) -> None:
        if not os.path.exists(armed):
            return
        if record:
            with open(record, "a") as file:
                file.write(f"{point}\n")
        if kill and _taken(Path(kill), point):
            os.kill(os.getpid(), signal.SIGKILL)
        if point == freeze:
            os.kill(os.getpid(), signal.SIGSTOP)

    _mark_hosts(reached)
    _mark_state(reached)


def _taken(file: Path, point: str) -> bool:
    """Take a point out of the file; return whether it was there."""
    points = file.read_text().splitlines() if file.exists() else []
    if point in points:
        file.write_text("".join(f"{other}\n" for other in points if other != point))
    return point in points


def _shift_clock(file: Path) -> None:
    real = time.time

    def shifted() -> float:
        return real() + (float(file.read_text() or 0) if file.exists() else 0)

    setattr(time, "time", shifted)  # noqa: B010, mypy


def _mark_hosts(reached: Callable[[str], None]) -> None:
    from dstack.hosts.local import LocalHost
    from dstack.hosts.ssh.host import SshHost

    def marked_run(run: Callable[..., Any]) -> Callable[..., Any]:
        async def call(host: Any, command: Any, **options: Any) -> Any:
            reached(f"before {command.name}")
            result = await run(host, command, **options)
            reached(f"after {command.name}")
            return result

        return call

    def marked_stream(stream: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        async def call(host: Any, command: Any) -> AsyncIterator[bytes]:
            reached(f"before {command.name}")
            async for piece in stream(host, command):
                yield piece
            reached(f"after {command.name}")

        return call

    for kind in (SshHost, LocalHost):
        setattr(kind, "run", marked_run(kind.run))  # noqa: B010, mypy
        setattr(kind, "stream", marked_stream(kind.stream))  # noqa: B010, mypy


def _mark_state(reached: Callable[[str], None]) -> None:
    from dstack.store.database import Database
    from dstack.store.logs import Logs
    from dstack.store.tables.events import EventLog

    transaction, append, add = Database.transaction, Logs.append, EventLog.add
    written: list[str] = []

    @contextmanager
    def marked_transaction(database: Database, *arguments: Any, **options: Any) -> Iterator[None]:
        outer = not database.conn.in_transaction
        with transaction(database, *arguments, **options):
            yield
            if outer and written:
                reached(f"before commit of {written[-1]}")
        if outer and written:
            last = written[-1]
            written.clear()
            reached(f"after commit of {last}")

    def marked_add(log: EventLog, kind: str, *arguments: Any, **options: Any) -> None:
        add(log, kind, *arguments, **options)
        written.append(kind)

    def marked_append(logs: Logs, job: str, data: bytes) -> None:
        append(logs, job, data)
        reached("after a piece of the log")

    setattr(Database, "transaction", marked_transaction)  # noqa: B010, mypy
    setattr(EventLog, "add", marked_add)  # noqa: B010, mypy
    setattr(Logs, "append", marked_append)  # noqa: B010, mypy
