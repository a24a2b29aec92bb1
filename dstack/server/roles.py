"""Who sends a request, and what they may do: one table of all routes, and the rules that depend on what is asked."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from dstack.errors import DstackError, ForbiddenError, UsageError
from dstack.model.api.runners import AddRunner
from dstack.model.api.tokens import Role
from dstack.model.job.job import Run
from dstack.model.runner.runner import DEFAULT_ROOT, Address, Runner
from dstack.model.sweep.sweep import Sweep

DOCKER = re.compile(r"(sudo (-n )?)?(docker|podman)( (-H|--host)[ =]unix://[A-Za-z0-9._/-]+)?")
"""The Docker commands that are no program of the caller's choice."""
UNSAFE = re.compile(r"^-|\\$|[\s'`\"$;&<>|(){}*?!\x00-\x1f\x7f]")
"""What OpenSSH refuses in host and user names, because a ProxyCommand or `Match exec` gives them to a shell. A login
may be DOMAIN\\user."""
START = "start the server with --allow-server-commands, or type it on the server's machine"


@dataclass(frozen=True)
class Caller:
    """Who sends a request. `name` is that of a personal token, which proves it. `commands`: they may do what amounts to
    a command as the server's user. `storage` are the folders in which artifacts may be stored, None for any."""

    role: Role | None
    name: str | None = None
    commands: bool = False
    storage: tuple[Path, ...] | None = ()


@dataclass(frozen=True)
class Allowed:
    """What admins may do over TCP: run commands as the server's user, and store artifacts below these folders."""

    commands: bool = False
    storage: tuple[Path, ...] = ()


OWNER = Caller(Role.ADMIN, commands=True, storage=None)
"""Whoever can open the unix socket."""
NOBODY = Caller(None)
"""Whoever sends no valid token."""

_caller: ContextVar[Caller] = ContextVar("caller", default=OWNER)


@contextmanager
def calling(sender: Caller) -> Iterator[None]:
    """Make `sender` the caller inside."""
    token = _caller.set(sender)
    try:
        yield
    finally:
        _caller.reset(token)


def caller() -> Caller:
    """Return who sent the request that is being answered."""
    return _caller.get()


@dataclass(frozen=True)
class Need:
    """What a route needs: a role, or None for requests that check a token of their own. `act` is what only an admin
    may do there."""

    role: Role | None
    act: str = ""


def admin(act: str) -> Need:
    return Need(Role.ADMIN, act)


ANYONE, MEMBER = Need(None), Need(Role.MEMBER)
NEEDED: dict[str, Need] = {
    "POST /runs": MEMBER,
    "GET /runs": MEMBER,
    "GET /runs/{ref}": MEMBER,
    "GET /runs/{ref}/diff": MEMBER,
    "GET /runs/{ref}/recipe": MEMBER,
    "POST /runs/delete": MEMBER,
    "POST /prune": admin("prune"),
    "POST /prune/caches": admin("prune"),
    "POST /prune/rest": admin("prune"),
    "GET /jobs": MEMBER,
    "GET /jobs/{ref}": MEMBER,
    "GET /follow/{ref}": MEMBER,
    "GET /metrics/{ref}": MEMBER,
    "GET /why/{ref}": MEMBER,
    "GET /usage": MEMBER,
    "GET /series/{ref}": MEMBER,
    "GET /compare": MEMBER,
    "POST /stop": MEMBER,
    "POST /hold": MEMBER,
    "POST /exec/{ref}": MEMBER,
    "POST /forward/{ref}/{port}": MEMBER,
    "GET /artifacts/{ref}": MEMBER,
    "GET /artifacts/{ref}/file": MEMBER,
    "GET /artifacts/{ref}/folders": MEMBER,
    "GET /artifacts/{ref}/url": MEMBER,
    "POST /artifacts/{ref}/urls": MEMBER,
    "GET /tags": MEMBER,
    "POST /tags": MEMBER,
    "DELETE /tags/{name}": MEMBER,
    "POST /sweeps": MEMBER,
    "GET /sweeps": MEMBER,
    "GET /sweeps/{ref}": MEMBER,
    "GET /sweeps/{ref}/follow": MEMBER,
    "POST /sweeps/{ref}/stop": MEMBER,
    "POST /sweeps/{ref}/resume": MEMBER,
    "POST /sweeps/{ref}/retry-failed": MEMBER,
    "POST /triggers": MEMBER,
    "GET /triggers": MEMBER,
    "GET /triggers/{name}": MEMBER,
    "DELETE /triggers/{name}": MEMBER,
    "POST /triggers/{name}/run": MEMBER,
    "POST /triggers/{name}/pause": MEMBER,
    "POST /triggers/{name}/resume": MEMBER,
    "POST /hooks/{name}": ANYONE,
    "GET /runners": MEMBER,
    "POST /runners": admin("add runners"),
    "DELETE /runners/{name}": admin("remove runners"),
    "POST /runners/{name}/check": MEMBER,
    "PUT /runners/{name}": admin("change runners"),
    "POST /runners/{name}/drain": admin("drain runners"),
    "POST /runners/{name}/resume": admin("resume runners"),
    "POST /runners/{name}/clean": admin("remove what is left on runners"),
    "POST /registrations": ANYONE,
    "GET /registrations": MEMBER,
    "POST /registrations/{name}/heartbeat": ANYONE,
    "POST /registrations/{name}/approve": admin("approve machines"),
    "POST /registration-tokens": admin("create registration tokens"),
    "GET /secrets": MEMBER,
    "POST /secrets": admin("set secrets"),
    "DELETE /secrets/{name}": admin("delete secrets"),
    "GET /tokens": admin("list tokens"),
    "POST /tokens": admin("create tokens"),
    "DELETE /tokens/{name}": admin("revoke tokens"),
    "GET /status": MEMBER,
    "GET /key": MEMBER,
    "GET /config": MEMBER,
    "POST /config": admin("change the server's settings"),
    "GET /notify": MEMBER,
    "POST /notify": MEMBER,
    "POST /notify/test": MEMBER,
    "POST /notify/clear": MEMBER,
    "DELETE /notify/{number}": MEMBER,
    "POST /shutdown": admin("stop the server"),
    "POST /identity": admin("change the server's identity"),
    "GET /events": MEMBER,
    "POST /ui": MEMBER,
}
"""What each route below /v1 needs. A route that is missing here is an admin's."""

PAGES: dict[str, Need] = {
    "GET /static/{hash}/{name}": ANYONE,
    "GET /login": ANYONE,
    "POST /login": ANYONE,
    "POST /logout": MEMBER,
    "GET /": MEMBER,
    "GET /runs": MEMBER,
    "GET /runs/{name}": MEMBER,
    "GET /runs/{name}/log": MEMBER,
    "GET /runs/{name}/log/raw": MEMBER,
    "GET /runs/{name}/artifacts": MEMBER,
    "GET /runs/{name}/artifacts/file": MEMBER,
    "GET /runs/{name}/code": MEMBER,
    "GET /runs/{name}/events": MEMBER,
    "GET /runs/{name}/usage": MEMBER,
    "GET /runs/{name}/curves": MEMBER,
    "GET /compare": MEMBER,
    "GET /compare/curves": MEMBER,
    "POST /runs/act": MEMBER,
    "GET /confirm": MEMBER,
    "POST /tags": MEMBER,
    "POST /tags/delete": MEMBER,
    "GET /runners": MEMBER,
    "GET /runners/{name}": MEMBER,
    "POST /runners/check": MEMBER,
    "POST /runners/drain": admin("drain runners"),
    "POST /runners/resume": admin("resume runners"),
    "GET /sweeps": MEMBER,
    "GET /sweeps/{name}": MEMBER,
    "GET /usage": MEMBER,
    "GET /events": MEMBER,
}
"""What each page and form of the web page needs."""

Answer = Callable[[Request], Awaitable[Response]]


def guarded(route: str, answer: Answer, refuse: Callable[[DstackError], Response]) -> Answer:
    """Wrap a route's answer: it is given only to those who may have it, and `caller` says who that is meanwhile."""
    need = NEEDED.get(route, admin(f"send {route}"))

    async def guard(request: Request) -> Response:
        sender: Caller = request.scope.get("dstack.caller", OWNER)
        if need.role is Role.ADMIN and sender.role is not Role.ADMIN:
            return refuse(admins_only(sender, need.act))
        with calling(sender):
            return await answer(request)

    return guard


def admins_only(sender: Caller, act: str) -> ForbiddenError:
    """Return the error for a member who asks for what only an admin may do."""
    return ForbiddenError(
        f"the token '{sender.name}' is a member's, and only an admin may {act}",
        hint="ask an admin, or ask for an admin's token: dstack server token create NAME --role admin",
    )


def owns(run: Run | Sweep) -> bool:
    """Whether the caller may change the run or sweep."""
    return caller().role is not Role.MEMBER or run.user == caller().name


def require_own(run: Run | Sweep) -> None:
    """Raise ForbiddenError if the run or sweep is another person's and the caller is a member."""
    if not owns(run):
        noun = "run" if isinstance(run, Run) else "sweep"
        raise admins_only(caller(), f"change {run.name}, a {noun} of {run.user}")


def require_admin(act: str) -> None:
    """Raise ForbiddenError if the caller is a member."""
    if caller().role is Role.MEMBER:
        raise admins_only(caller(), act)


def require_commands(what: str) -> None:
    """Raise ForbiddenError unless the caller may run commands as the server's user, which `what` amounts to."""
    if not caller().commands:
        require_admin(f"use {what}")
        message = f"{what} would let you run commands as the server's user, which this server doesn't allow over TCP"
        raise ForbiddenError(message, hint=START)


def check_runner(wanted: AddRunner, own_key: Path, before: Runner | None = None) -> None:
    """Raise ForbiddenError if the runner's new definition is a command as the server's user, and the caller may give
    none. The server's own key is no secret of its user, and what the runner has already may stay."""
    check_address(wanted.address)
    if wanted.address.local and not (before and before.address.local and reach(wanted) == reach(before)):
        require_commands("the runner `local`, the server's own machine,")
    if wanted.docker not in (None, before and before.docker) and not DOCKER.fullmatch(wanted.docker):
        require_commands(f"the Docker command '{wanted.docker}'")
    known = (None, str(own_key), before and before.address.identity, before and before.address.jump_identity)
    for identity in (None if wanted.authorized else wanted.address.identity, wanted.address.jump_identity):
        if identity not in known:
            require_commands(f"the key file {identity} of the server's machine")


def reach(runner: AddRunner | Runner) -> tuple[str, str, tuple[str, ...]]:
    """Return what decides how far jobs reach into the runner's machine: its root, Docker command and mounts."""
    return runner.root or DEFAULT_ROOT, runner.docker or "docker", runner.allow_mounts


def check_address(address: Address) -> None:
    """Raise UsageError for a host, user or jump host that a shell could take for more than a name, whoever asks."""
    for name in (address.host, address.user, address.jump):
        if name is not None and UNSAFE.search(name):
            hint = "write a name, an address, or an alias from ~/.ssh/config on the server's machine"
            raise UsageError(f"{name!r} is not a valid host or user name", hint=hint)


def check_storage(url: str) -> None:
    """Raise ForbiddenError for a folder in which the caller may not store artifacts. Buckets are not restricted."""
    roots = caller().storage
    if roots is None or "://" in url:
        return
    folder = Path(url).resolve()
    if not any(folder.is_relative_to(root.resolve()) for root in roots):
        allowed = " or ".join(str(root) for root in roots)
        raise ForbiddenError(
            f"{url} is outside of the folders where this server may store artifacts over TCP: {allowed}",
            hint=f"start the server with --storage-root {folder}, or type it on the server's machine",
        )
