"""The server's process: `python -m dstack.server --home HOME [--host HOST --port PORT]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import pwd
import resource
import socket
import stat
import sys
import time
from pathlib import Path

import uvicorn

from dstack import __version__
from dstack.artifacts.store import LONGEST_URL_LIFETIME, URL_LIFETIME
from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.sampling import Sampler
from dstack.engine.retention.retention import Retention, limit_events
from dstack.errors import DstackError, UsageError
from dstack.hosts.pool import Pool
from dstack.model.api import wire
from dstack.model.paths import ServerLayout
from dstack.model.text.units import span
from dstack.server.access import Access, hashed
from dstack.server.app import application, table
from dstack.server.endpoints import problem_of, problem_response
from dstack.server.lock import owned
from dstack.server.registrations import RegistrationService
from dstack.server.runner_service import RunnerService
from dstack.store.backup.restore import finish_restore
from dstack.store.store import Store

IDLE_EXIT = 600.0
"""Seconds without requests or unfinished runs after which the server exits (DSTACK_IDLE_EXIT)."""

log = logging.getLogger("dstack.server")


def main() -> None:
    """Serve until stopped, or until idle for too long. The command that starts the server reads from the problem file
    why it could not start."""
    parser = argparse.ArgumentParser(prog="python -m dstack.server")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--problem-file", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.WARNING)  # it logs every session: 10 kB per minute and host
    try:
        serve(ServerLayout(arguments.home.absolute()), arguments.socket, arguments.host, arguments.port)
    except DstackError as error:
        print(f"dstack server: error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        if arguments.problem_file:
            arguments.problem_file.write_bytes(wire.encode(problem_of(error)[0]))
        sys.exit(error.exit_code)


def serve(layout: ServerLayout, path: Path, host: str, port: int | None) -> None:
    """Lock the home folder, listen, and run the engine."""
    prepare_process()
    layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with owned(layout):
        finish_restore(layout)
        store = Store(layout)
        if port is not None:
            remember_token(store)
        sockets = [unix_socket(path)]
        url = sockets[0].getsockname()
        if port is not None:
            sockets.append(tcp_socket(host, port))
            url = "http://{}:{}".format(*sockets[1].getsockname()[:2])
        log.info("dstack %s listens on %s", __version__, url)
        try:
            asyncio.run(run(layout, store, sockets, url, stays=port is not None))
        finally:
            path.unlink(missing_ok=True)
            store.close()


async def run(layout: ServerLayout, store: Store, sockets: list[socket.socket], url: str, *, stays: bool) -> None:
    """Set up and run everything that lives in the event loop."""
    pool, events = Pool(), Events()
    fleet = Fleet(store, pool, changed=lambda: engine.poke())
    context = Context(layout=layout, store=store, fleet=fleet, events=events, url_lifetime=url_lifetime())
    engine = Engine(context)
    metrics = Sampler(store, fleet)
    fleet.use = metrics.use
    fleet.load = metrics.load
    registrations = RegistrationService(RunnerService(engine, metrics))
    fleet.absent = registrations.absent
    retention = Retention(context)
    routes = table(engine, retention, registrations, url, lambda: setattr(server, "should_exit", True))
    access = Access(application(routes), lambda: store.settings.get("token"), problem_response)
    config = uvicorn.Config(access, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    await context.artifacts.current.sweep()
    engine.start()
    context.background(metrics.watch())
    context.background(retention.watch())
    context.background(limit_events(store))
    idle = asyncio.create_task(leave_when_idle(server, access, store, idle_exit(stays)))
    try:
        await server.serve(sockets=sockets)
    finally:
        idle.cancel()
        await engine.close()
        await pool.close_all()


async def leave_when_idle(server: uvicorn.Server, access: Access, store: Store, limit: float) -> None:
    """Stop the server after `limit` seconds without requests or unfinished jobs; 0 means never."""
    while limit:
        await asyncio.sleep(min(1.0, limit / 2))
        if store.jobs.unfinished():
            access.last = time.monotonic()
        elif access.idle > limit:
            log.info("idle for %.0f seconds: exiting", limit)
            server.should_exit = True
            return


def idle_exit(stays: bool) -> float:
    """Return the seconds after which an idle server exits. On TCP it stays up unless DSTACK_IDLE_EXIT is set."""
    text = os.environ.get("DSTACK_IDLE_EXIT", "")
    if not text:
        return 0.0 if stays else IDLE_EXIT
    try:
        return max(0.0, float(text))
    except ValueError as error:
        message = f"DSTACK_IDLE_EXIT: '{text}' is not a number of seconds; write 600, or 0 to stay up"
        raise UsageError(message) from error


def url_lifetime() -> int:
    """Return the seconds for which presigned URLs are valid (DSTACK_URL_LIFETIME)."""
    text = os.environ.get("DSTACK_URL_LIFETIME", "")
    if not text:
        return URL_LIFETIME
    try:
        seconds = int(span(text))
    except ValueError as error:
        raise UsageError(f"DSTACK_URL_LIFETIME: '{text}' is not a duration; write 30m, 12h or 7d") from error
    if not 1 <= seconds <= LONGEST_URL_LIFETIME:
        raise UsageError(f"DSTACK_URL_LIFETIME: '{text}' is out of range; write a duration between 1s and 7d")
    return seconds


def unix_socket(path: Path) -> socket.socket:
    """Return a listening socket that only this user can open."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    listening.listen(128)
    return listening


def tcp_socket(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 picks a free one. Raises UsageError if it can't listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise UsageError(f"can't listen on {host}:{port}: {error.strerror}", hint="choose another --port") from error
    listening.listen(128)
    return listening


def remember_token(store: Store) -> None:
    """Store the hash of DSTACK_TOKEN. Raises UsageError if no token was ever set."""
    token = os.environ.get("DSTACK_TOKEN")
    if token:
        store.settings.set("token", hashed(token))
    elif store.settings.get("token") is None:
        hint = "set DSTACK_TOKEN to a secret of your choice, for the server and for its users"
        raise UsageError("a server on TCP needs a token", hint=hint)


def prepare_process() -> None:
    """Keep what it writes private. Set HOME, USER and PATH if they are missing, as under cron or in a service. Raise
    the limit of open files as far as the system allows: each connection and each log is one."""
    os.umask(0o077)
    person = pwd.getpwuid(os.getuid())
    os.environ.setdefault("HOME", person.pw_dir)
    os.environ.setdefault("USER", person.pw_name)
    os.environ.setdefault("PATH", os.defpath)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))


if __name__ == "__main__":
    main()
