"""The server's process: `python -m dstack.server --home HOME [--host HOST --port PORT]`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import math
import os
import pwd
import resource
import shlex
import socket
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path

from dstack import __version__
from dstack.artifacts.store import LONGEST_URL_LIFETIME, URL_LIFETIME
from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Fleet
from dstack.engine.fleet.sampling import Sampler
from dstack.engine.notify.notifier import Notifier
from dstack.engine.retention.leftovers import keep_swept, sweep
from dstack.engine.retention.retention import Retention, limit_events
from dstack.engine.sweeps.sweeps import SweepDrives
from dstack.engine.triggers.loop import TriggerLoop
from dstack.errors import DstackError, UsageError
from dstack.hosts.pool import Pool
from dstack.model.api import wire
from dstack.model.paths import ServerLayout
from dstack.model.text.units import span
from dstack.plumbing.file_errors import naming, plain_errors
from dstack.server import log as server_log
from dstack.server.access import Access
from dstack.server.app import application, table
from dstack.server.border.listener import Border, Listener
from dstack.server.border.names import OwnNames, base_path
from dstack.server.border.tls import Certificate
from dstack.server.endpoints import problem_of, problem_response
from dstack.server.lock import owned
from dstack.server.registrations import RegistrationService
from dstack.server.roles import Allowed
from dstack.server.runners.runner_service import RunnerService
from dstack.server.web.app import WebPages
from dstack.server.web.port import WebPort
from dstack.store.backup.restore import finish_restore
from dstack.store.store import Store

IDLE_EXIT = 600.0
"""Seconds without requests or unfinished runs after which the server exits (DSTACK_IDLE_EXIT)."""

RESERVING = 1.0
"""Seconds after the start when the server takes space for its state, which keeps it from answering for some 20 ms."""

log = logging.getLogger("dstack.server")


def main() -> None:
    """Serve until stopped, or until idle for too long. The command that starts the server reads from the problem pipe
    why it could not start."""
    parser = argparse.ArgumentParser(prog="python -m dstack.server")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int)
    parser.add_argument("--problem-pipe", type=int)
    parser.add_argument("--base-path", default="")
    parser.add_argument("--allow-host", action="append", default=[])
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--allow-server-commands", action="store_true")
    parser.add_argument("--storage-root", type=Path, action="append", default=[])
    arguments = parser.parse_args()
    layout = ServerLayout(arguments.home.absolute())
    try:
        with plain_errors():
            server_log.set_up(layout)
            serve(layout, arguments.socket, arguments)
    except DstackError as error:
        if arguments.problem_pipe is not None:
            with suppress(OSError):  # nobody reads it once the server has answered
                os.write(arguments.problem_pipe, wire.encode(problem_of(error)[0]))
        print(f"dstack server: error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # before it listened
        sys.exit(130)


def serve(layout: ServerLayout, path: Path, given: argparse.Namespace) -> None:
    """Lock the home folder, listen, and run the engine."""
    prepare_process()
    layout.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with owned(layout):
        finish_restore(layout)
        store = Store(layout)
        if given.port is not None:
            remember_token(store)
        border = border_of(given)
        sockets = [unix_socket(path)]
        url = sockets[0].getsockname()
        if given.port is not None:
            sockets.append(tcp_socket(given.host, given.port))
            scheme = "https" if border.certificate else "http"
            url = "{}://{}:{}{}".format(scheme, *shown_address(sockets[1]), border.base)
            border.names.look_up()
        log.info("dstack %s listens on %s", __version__, url)
        try:
            roots = (layout.artifacts, *map(Path.absolute, given.storage_root))
            allowed = Allowed(given.allow_server_commands, roots)
            asyncio.run(run(layout, store, sockets, url, border, allowed, stays=given.port is not None))
        finally:
            path.unlink(missing_ok=True)
            store.close()


def border_of(given: argparse.Namespace) -> Border:
    """Return what the server was started with for its border. Raises UsageError for a certificate or a base path that
    can't be used."""
    options = {"--host": [given.host], "--port": [given.port], "--base-path": [given.base_path or None]}
    options |= {"--tls-cert": [given.tls_cert], "--tls-key": [given.tls_key], "--allow-host": given.allow_host}
    words = [
        str(word) for name, values in options.items() for value in values if value is not None for word in (name, value)
    ]
    return Border(
        names=OwnNames([given.host, *given.allow_host], shlex.join(["dstack", "server", "start", *words])),
        base=base_path(given.base_path),
        certificate=Certificate(given.tls_cert, given.tls_key) if given.tls_cert else None,
    )


def shown_address(listening: socket.socket) -> tuple[str, int]:
    """Return the address of a TCP socket as in a URL."""
    host, port = listening.getsockname()[:2]
    return (f"[{host}]" if ":" in host else host), port


async def run(
    layout: ServerLayout,
    store: Store,
    sockets: list[socket.socket],
    url: str,
    border: Border,
    allowed: Allowed,
    *,
    stays: bool,
) -> None:
    """Set up and run everything that lives in the event loop. `allowed` is what admins may do over TCP."""
    pool, events = Pool(), Events()
    fleet = Fleet(store, pool, changed=lambda: engine.poke())
    context = Context(layout=layout, store=store, fleet=fleet, events=events, url_lifetime=url_lifetime())
    engine = Engine(context)
    metrics = Sampler(store, fleet)
    fleet.use = metrics.use
    fleet.load = metrics.load
    service = RunnerService(engine, metrics)
    registrations = RegistrationService(service)
    fleet.absent = registrations.absent
    retention = Retention(context)
    sweeps, triggers = SweepDrives(context, engine), TriggerLoop(context, engine)
    notifier = Notifier(context)
    web = WebPages(engine, retention, service, store.database.synced)
    port = WebPort(web.sessions, context.tasks, url, lambda one: server.add(one), lambda: web.site.idle)
    loops = sweeps, notifier, triggers
    routes = table(engine, retention, registrations, *loops, url, lambda: server.stop(), port.link)
    app = application(routes, store.database.synced, web.routes(), web.site.missing)
    access = Access(app, store.tokens, allowed, problem_response, web.sessions.find)
    store.tokens.revoked = access.end
    server = Listener(access, border)
    await context.tasks.attempt("removing leftovers at the start", lambda: sweep(context, math.inf))
    engine.start()
    sweeps.start()
    context.tasks.start("triggers", triggers.run)
    context.tasks.start("metrics", metrics.watch)
    context.tasks.start("notifying", notifier.run)
    context.tasks.start("removing the rest of deleted runs", retention.watch)
    context.tasks.start("removing leftovers", lambda: keep_swept(context))
    context.tasks.start("forgetting old events", lambda: limit_events(store))
    context.tasks.start("reserving space for the state", lambda: reserve(store))
    if border.certificate:
        context.tasks.start("reading renewed certificates", border.certificate.watch)
    limit = idle_exit(stays)
    context.tasks.start("leaving when idle", lambda: leave_when_idle(server, access, store, limit))
    try:
        await server.serve(sockets=sockets)
    finally:
        triggers.close()
        await engine.close()
        await pool.close_all()


async def reserve(store: Store) -> None:
    """Take space for the state once the command that started the server has its answer."""
    await asyncio.sleep(RESERVING)
    store.database.reserve()


async def leave_when_idle(server: Listener, access: Access, store: Store, limit: float) -> None:
    """Stop the server after `limit` seconds without requests, unfinished jobs, sweeps, active triggers, or messages to
    send; 0 means never."""
    while limit:
        await asyncio.sleep(min(1.0, limit / 2))
        if store.jobs.unfinished() or store.sweeps.running() or store.triggers.active or store.outbox.pending():
            access.last = time.monotonic()
        elif access.idle > limit:
            log.info("idle for %.0f seconds: exiting", limit)
            server.stop()
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
    with naming(path):
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
    """Store the hash of DSTACK_TOKEN, the shared token of admins. Raises UsageError if there is no token at all."""
    token = os.environ.pop("DSTACK_TOKEN", "")
    if token:
        store.tokens.share(token)
    elif not store.tokens.all():
        hint = "make one with `dstack server token create NAME --role admin`, or set DSTACK_TOKEN"
        raise UsageError("a server on TCP needs a token", hint=hint)


def prepare_process() -> None:
    """Keep what it writes private, and write no core file, which would have secrets in it. Set HOME, USER and PATH if
    they are missing, as under cron or in a service. Raise the limit of open files as far as the system allows: each
    connection and each log is one."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for name, value in person().items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("PATH", os.defpath)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))


def person() -> dict[str, str]:
    """Return HOME and USER as a login would set them. In a container, the password database may lack the user."""
    try:
        known = pwd.getpwuid(os.getuid())
    except KeyError:
        return {"HOME": "/", "USER": str(os.getuid())}
    return {"HOME": known.pw_dir, "USER": known.pw_name}


if __name__ == "__main__":
    main()
