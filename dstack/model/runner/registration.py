"""A machine that registered itself with `dstack-runner`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Seconds = Annotated[float, Meta(ge=0, le=86400)]


class Registration(Struct, frozen=True, kw_only=True):
    """What the machine reported about itself. `secret` is the hash of its heartbeats' secret; `host_keys` are public
    keys (type and base64); `unavailable` says why it accepts no jobs, in its own words; with `once`, it sends no
    heartbeats. `interval` is the time between heartbeats in seconds."""

    name: str
    user: str
    address: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    host_keys: Annotated[tuple[str, ...], Meta(min_length=1, max_length=100)]
    secret: str = ""
    labels: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    root: str | None = None
    docker: str | None = None
    approved: bool = False
    unavailable: str | None = None
    once: bool = False
    interval: Seconds = 10.0

    def same_machine(self, other: Registration) -> bool:
        """Whether both registrations are for the same account on the same machine."""
        mine, theirs = ((one.user, one.address, one.port, one.host_keys) for one in (self, other))
        return mine == theirs


class Heartbeat(Struct, frozen=True, kw_only=True):
    """The body of `POST /registrations/NAME/heartbeat`."""

    secret: str
    unavailable: str | None = None
    interval: Seconds = 10.0
    once: bool = False


class Registered(Struct, frozen=True, kw_only=True):
    """The response to a registration: the server's public key, for the machine to authorize, and the server's id."""

    name: str
    secret: str
    key: str
    server: str
    approved: bool


class Heard(Struct, frozen=True, kw_only=True):
    """The response to a heartbeat. `state` is pending, ready or refused; `words` is for the machine's owner. To a
    machine that is no longer available, `key_used_by` names the runners that need the server's key in that account."""

    state: str
    words: str
    key_used_by: list[str] = []


class RegistrationView(Struct, frozen=True, kw_only=True):
    """A registration as users see it."""

    name: str
    address: str
    fingerprints: list[str]
    labels: list[str]
    gpus: list[str]
    approved: bool


class RegistrationToken(Struct, frozen=True, kw_only=True):
    """A token that lets one machine register without approval."""

    token: str
