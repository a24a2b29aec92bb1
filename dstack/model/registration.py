"""A machine that offered itself by `dstack-runner`."""

from __future__ import annotations

from msgspec import Struct


class Registration(Struct, frozen=True, kw_only=True):
    """What the machine said of itself. `secret` is the hash of what its signs of life carry; `host_keys` are public
    keys (type and base64); `unavailable` is why it takes no jobs, in its own words; `once`: no signs of life are to
    be expected. `interval` in seconds.
    """

    name: str
    user: str
    address: str
    port: int
    host_keys: tuple[str, ...]
    secret: str = ""
    labels: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    root: str | None = None
    docker: str | None = None
    approved: bool = False
    unavailable: str | None = None
    once: bool = False
    interval: float = 10.0

    def same_machine(self, other: Registration) -> bool:
        """Whether the other one leads to the same account of the same machine."""
        return (self.user, self.address, self.port, self.host_keys) == (
            other.user,
            other.address,
            other.port,
            other.host_keys,
        )


class Heartbeat(Struct, frozen=True, kw_only=True):
    """The body of `POST /registrations/NAME/heartbeat`."""

    secret: str
    unavailable: str | None = None
    interval: float = 10.0
    once: bool = False


class Registered(Struct, frozen=True, kw_only=True):
    """The answer to a registration: the server's public key, which the machine lets in, and the server's id."""

    name: str
    secret: str
    key: str
    server: str
    approved: bool


class Heard(Struct, frozen=True, kw_only=True):
    """The answer to a sign of life. `state` is pending, ready, or refused; `words` is for the machine's owner."""

    state: str
    words: str


class RegistrationView(Struct, frozen=True, kw_only=True):
    """A registration as users see it."""

    name: str
    address: str
    fingerprints: list[str]
    labels: list[str]
    gpus: list[str]
    approved: bool


class RegistrationToken(Struct, frozen=True, kw_only=True):
    """A token that registers one machine, which needs no approval then."""

    token: str
