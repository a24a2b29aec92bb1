"""Machines that register with `dstack-runner`: who may register, which are approved, and which are still alive."""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import asdict, replace
from starlette.requests import Request
from starlette.responses import Response

from dstack.errors import ConflictError, DstackError, UnauthorizedError, UsageError
from dstack.hosts.trust import own_key
from dstack.model.api.runners import AddRunner
from dstack.model.runner.registration import (
    Heard,
    Heartbeat,
    Registered,
    Registration,
    RegistrationToken,
    RegistrationView,
)
from dstack.model.runner.runner import Address, fingerprint
from dstack.server.roles import NOBODY, OWNER, caller, check_runner, require_admin
from dstack.server.runners.runner_service import RunnerService
from dstack.server.views import shown
from dstack.store.tables.tokens import hashed

MISSED = 3.5
"""Intervals without a heartbeat after which a machine gets no new jobs."""
PROGRAM = Path(__file__).parents[1] / "runner" / "__init__.py"
HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]+")


@dataclass
class RegistrationService:
    """The registrations, on top of the runners. `heard` holds the monotonic time of each machine's last heartbeat, in
    seconds. After a restart, all machines count as just heard."""

    runner_service: RunnerService
    heard: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    adding: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def register(self, request: Request, wanted: Registration) -> Registered:
        """Record a registration. One with the server's token must be approved by an admin the first time; one over the
        socket or with a registration token is approved at once."""
        store, sender = self.runner_service.store, caller()
        require_admin("register machines without a registration token")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if sender is NOBODY and (scheme.lower() != "bearer" or not token):
            raise UnauthorizedError("the server requires a token", hint="set DSTACK_TOKEN")
        secret = secrets.token_urlsafe(24)
        with store.database.transaction():  # a registration that is refused leaves its token valid
            if sender is NOBODY and not store.registrations.take_token(hashed(token)):
                hint = "make a new one: dstack runners token"
                raise UnauthorizedError("the registration token is invalid, or already used", hint=hint)
            before = self.earlier(wanted)
            approved = sender in (OWNER, NOBODY) or (before is not None and before.approved)
            store.registrations.put(replace(wanted, secret=hashed(secret), approved=approved, unavailable=None))
        key = await asyncio.to_thread(own_key, self.runner_service.identity)
        return Registered(name=wanted.name, secret=secret, key=key, server=store.identity.id, approved=approved)

    def earlier(self, wanted: Registration) -> Registration | None:
        """Return the machine's earlier registration, or None. Raises ConflictError if another one has its name, and
        ForbiddenError for what the caller may not register."""
        store, name = self.runner_service.store, wanted.name
        check_runner(request_of(wanted), self.runner_service.identity)
        before = store.registrations.get(name)
        same = before is not None and before.same_machine(wanted)
        if before is None or store.runners.get(name) is None:
            self.runner_service.check_name(name, address_of(wanted))
        elif not same:
            hint = f"choose another --name, or: dstack runners remove {name}"
            raise ConflictError(f"'{name}' is already another machine, {address_of(before)}", hint=hint)
        return before if same else None

    async def heartbeat(self, name: str, beat: Heartbeat) -> Heard:
        """Record a heartbeat and whether the machine may be used. The first one adds an approved machine. Whoever lacks
        the secret does not learn whether the name exists."""
        store = self.runner_service.store
        registration = store.registrations.get(name)
        if registration is None or not hmac.compare_digest(registration.secret, hashed(beat.secret)):
            message = f"'{name}' was removed, or another machine has registered under this name"
            raise UnauthorizedError(message, hint="start dstack-runner again, or choose another --name")
        self.heard[name] = time.monotonic()
        told = {field: value for field, value in asdict(beat).items() if field != "secret"}
        if replace(registration, **told) != registration:
            registration = store.registrations.change(name, **told)
            self.runner_service.engine.poke()
        heard = await self.admit(registration)
        return replace(heard, key_used_by=self.key_users(registration)) if beat.unavailable else heard

    async def admit(self, registration: Registration) -> Heard:
        """Add an approved machine that is no runner yet, and return what a heartbeat is answered."""
        store, name = self.runner_service.store, registration.name
        if not registration.approved:
            return Heard(state="pending", words=f"waiting for approval: dstack runners approve {name}")
        async with self.adding[name]:
            if store.runners.get(name) is None:
                try:
                    await self.add(registration)
                    self.heard[name] = time.monotonic()  # adding may have taken longer than heartbeats may be missing
                except DstackError as trouble:
                    hint = f"; {trouble.hint}" if trouble.hint else ""
                    return Heard(state="refused", words=f"not usable yet: {trouble.message}{hint}")
        if registration.unavailable:
            return Heard(state="ready", words=f"gets no new jobs: {registration.unavailable}")
        return Heard(state="ready", words=f"available as {name}")

    async def add(self, registration: Registration) -> None:
        """Add the machine. Its host key must be one of those that it reported."""
        address = address_of(registration)
        offered = await self.runner_service.fleet.pool.dialer.offered_key(address)
        vouched = fingerprint(offered if offered in registration.host_keys else registration.host_keys[0])
        await self.runner_service.add(replace(request_of(registration), fingerprint=vouched))

    def key_users(self, registration: Registration) -> list[str]:
        """Return the other runners for which the server's key has to stay in the machine's account."""
        return [
            runner.name
            for runner in self.runner_service.store.runners.all()
            if runner.authorized and runner.name != registration.name and runner.host_key in registration.host_keys
            if runner.facts and runner.facts.user == registration.user and self.absent(runner.name) is None
        ]

    def approve(self, name: str) -> RegistrationView:
        """Approve the machine. Its next heartbeat adds it."""
        return view(self.runner_service.store.registrations.change(name, approved=True))

    def token(self) -> RegistrationToken:
        """Create a token that registers one machine."""
        token = secrets.token_urlsafe(24)
        self.runner_service.store.registrations.add_token(hashed(token))
        return RegistrationToken(token=token)

    def all(self) -> list[RegistrationView]:
        return [view(registration) for registration in self.runner_service.store.registrations.all()]

    def absent(self, name: str) -> str | None:
        """Return why a registered machine gets no new jobs now, or None."""
        registration = self.runner_service.store.registrations.get(name)
        if registration is None:
            return None
        if registration.unavailable:
            return f"no longer offered: {registration.unavailable}"
        silent = time.monotonic() - self.heard.get(name, self.begun)
        if registration.once or silent < registration.interval * MISSED:
            return None
        return f"its dstack-runner has sent no heartbeat for {silent:.0f} seconds"


def program(request: Request) -> Response:
    """Return the program `dstack-runner`, with this server's URL filled in."""
    host = request.headers.get("host", "")
    if not HOST.fullmatch(host):
        raise UsageError("the request's Host header is missing or not valid")
    scheme = request.headers.get("x-forwarded-proto", request.url.scheme)
    base = request.scope.get("dstack.base_path", "")
    url = f"{'https' if scheme == 'https' else 'http'}://{host}{base}"
    text = PROGRAM.read_text().replace('SERVER = ""', f'SERVER = "{url}"', 1)
    return Response(text, media_type="text/x-python")


def address_of(registration: Registration) -> Address:
    return Address(host=registration.address, user=registration.user, port=registration.port)


def request_of(registration: Registration) -> AddRunner:
    """Return the request that adds the machine, without its fingerprint."""
    return AddRunner(
        address=address_of(registration),
        name=registration.name,
        labels=registration.labels,
        root=registration.root,
        docker=registration.docker,
        authorized=True,
    )


def view(registration: Registration) -> RegistrationView:
    """Return a registration as users see it."""
    return shown(
        registration,
        RegistrationView,
        address=str(address_of(registration)),
        fingerprints=[fingerprint(key) for key in registration.host_keys],
    )
