"""Opens SSH connections: shares bastions, limits simultaneous handshakes, and verifies every host key."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import asyncssh
from msgspec import structs

from dstack.errors import HostAuthError, HostError, HostKeyError
from dstack.hosts.ssh.failures import TROUBLE, host_error, ssh_command
from dstack.hosts.ssh.keys import UserKeys, agent_keys, key_name, public_text
from dstack.hosts.ssh.links import Shared
from dstack.hosts.ssh.pulse import NEVER, Pulse
from dstack.hosts.ssh.settings import SshSettings, read_settings
from dstack.hosts.ssh.tcp import Direct
from dstack.model.runner.runner import Address, fingerprint

_ECDSA = [f"ecdsa-sha2-nistp{bits}" for bits in (256, 384, 521)]
_KEY_ALGORITHMS = ("ssh-ed25519", *_ECDSA, "rsa-sha2-512", "rsa-sha2-256")
_CERTIFICATES = [f"{name}-cert-v01@openssh.com" for name in _KEY_ALGORITHMS]
_CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr"

_SESSION: dict[str, Any] = {
    "config": None,
    "encoding": None,
    "request_pty": False,
    "x509_trusted_certs": None,
    "x509_trusted_cert_paths": [],
    "gss_host": None,
    "preferred_auth": "publickey",
    "encryption_algs": _CIPHERS,
    "compression_algs": None,
}
"""Options that no configuration changes. GSS and X.509 would vouch for a host in place of its key."""

_TRIES = 7
_RESET = (asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError)
"""How an sshd with too many handshakes in progress fails (MaxStartups in sshd_config(5))."""


class Dialer:
    """Opens connections and keeps those to bastions.

    `keepalive` is the pause in seconds between probes of a silent peer; after `keepalives` unanswered ones the
    connection counts as broken. ServerAliveInterval in ssh_config overrides both. `timeout` is in seconds per attempt;
    `starts` limits the simultaneous handshakes with one sshd.

    Wi-Fi often passes nothing for some seconds, and TCP then resumes by itself: users are told after one unanswered
    probe, but only after 20 seconds a new connection is likely to be back sooner than the old one.
    """

    def __init__(self, *, keepalive: float = 5.0, keepalives: int = 3, timeout: float = 15.0, starts: int = 8) -> None:
        self._keepalive = keepalive
        self._keepalives = keepalives
        self._timeout = timeout
        self._starts = starts
        self._gates: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._bastions: dict[tuple[str, str | None], Shared[asyncssh.SSHClientConnection]] = {}

    async def dial(self, address: Address, host_key: str, name: str = "NAME") -> asyncssh.SSHClientConnection:
        """Connect to the machine with this host key. `name` is the runner's name, for the hint if the key changed."""
        async with _visiting(address) as visitor:
            pinned = asyncssh.import_public_key(host_key)
            try:
                return await self._open(visitor, _only([pinned], first=[pinned]))
            except asyncssh.HostKeyNotVerifiable as error:
                shown = fingerprint(visitor.offered) if visitor.offered else "a key that can't be read"
                raise HostKeyError(
                    f"{address}: the host key changed from {fingerprint(host_key)} to {shown}; dstack did not log in",
                    hint=f"if the machine was reinstalled: dstack runners remove --force {name}, "
                    f"then dstack runners add {address} --name {name}",
                ) from error

    async def offered_key(self, address: Address) -> str:
        """Return the public host key that the machine presents, preferably of a type that known_hosts lists for it.
        Does not log in."""
        async with _visiting(address) as visitor:
            known, *_ = await asyncio.to_thread(visitor.settings.listed_keys)
            with suppress(asyncssh.HostKeyNotVerifiable):
                (await self._open(visitor, _only([], first=known))).abort()
        if visitor.offered is None:
            raise HostKeyError(f"{address} did not present a host key")
        return visitor.offered

    async def certified_key(self, address: Address) -> str | None:
        """Return the machine's public host key if a certificate authority in known_hosts certified it for this host,
        else None. Does not log in."""
        async with _visiting(address) as visitor:
            _, certifying, revoked = await asyncio.to_thread(visitor.settings.listed_keys)
            if not certifying:
                return None
            visitor.settings = replace(visitor.settings, keys=UserKeys(), agent=None)
            trust = {"known_hosts": ([], certifying, revoked), "server_host_key_algs": _CERTIFICATES}
            try:
                (await self._open(visitor, trust)).abort()
            except HostAuthError:
                pass  # the certificate is valid
            except (asyncssh.KeyExchangeFailed, asyncssh.HostKeyNotVerifiable):
                return None  # no certificate, or an invalid one
        shown = visitor.connection and visitor.connection.get_server_host_key()
        return public_text(shown) if shown else None

    async def close(self) -> None:
        """Close the connections to bastions."""
        bastions, self._bastions = tuple(self._bastions.values()), {}
        for bastion in bastions:
            await bastion.cancel()
            if bastion.latest is not None:
                bastion.latest.abort()
                await bastion.latest.wait_closed()

    async def __aenter__(self) -> Dialer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _open(self, visitor: _Visitor, trust: dict[str, Any]) -> asyncssh.SSHClientConnection:
        settings = visitor.settings
        gate = self._gates.setdefault((settings.host, settings.port), asyncio.Semaphore(self._starts))
        attempt = 1
        while True:
            try:
                tunnel = await self._way(settings)
                async with gate:
                    return await self._attempt(visitor, trust, tunnel)
            except _RESET:
                if attempt == _TRIES:
                    raise
            await asyncio.sleep(min(1.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.5))
            attempt += 1

    async def _attempt(self, visitor: _Visitor, trust: dict[str, Any], tunnel: Any) -> asyncssh.SSHClientConnection:
        settings = visitor.settings
        timeout = settings.timeout or self._timeout
        interval, times = self._keepalive, self._keepalives
        if settings.keepalive:
            interval, times = settings.keepalive, settings.keepalives
        async with agent_keys(settings.agent, settings.agent_keys) as held:
            in_files = {pair.public_data for pair in settings.keys.pairs}
            keys = [*settings.keys.pairs, *(key for key in held if key.public_data not in in_files)]
            try:
                connection = await asyncssh.connect(
                    settings.host,
                    settings.port,
                    username=settings.user,
                    host_key_alias=settings.alias,
                    **_SESSION,
                    keepalive_interval=interval,
                    keepalive_count_max=NEVER,
                    **trust,
                    tunnel=tunnel,
                    proxy_command=settings.proxy,
                    client_factory=lambda: visitor,
                    client_keys=keys or None,
                    agent_path=None,
                    connect_timeout=timeout,
                    login_timeout=timeout,
                )
            except asyncssh.PermissionDenied as error:
                raise _refused(settings, keys) from error
        Pulse(connection, interval, times)
        return connection

    async def _way(self, settings: SshSettings) -> Any:
        """Return asyncssh's `tunnel` argument: the bastion's connection, or how to connect without one."""
        address = settings.address
        hops = [hop.strip() for hop in (settings.jump or "").split(",") if hop.strip()]
        hop = _hop(hops[-1], None) if hops else None
        # `Host *` with a ProxyJump matches the hop too
        if hop is None or (hop.host, hop.port) == (address.host, address.port):
            return None if settings.proxy else Direct(settings.family, settings.local)
        key = (",".join(hops), address.jump_identity or address.identity)
        bastion = self._bastions.setdefault(key, Shared(lambda: self._bastion(*key)))
        if bastion.latest is None or bastion.latest.is_closed():
            return await bastion.result()
        return bastion.latest

    async def _bastion(self, hops: str, identity: str | None) -> asyncssh.SSHClientConnection:
        """Connect to the last of these hosts through the ones before it. Its key must be in known_hosts. `identity` is
        tried after the keys that the configuration names for it."""
        before, _, last = hops.rpartition(",")
        address = _hop(last, before or None)
        async with _visiting(address, identity) as visitor:
            settings = visitor.settings
            known = await asyncio.to_thread(settings.read_known_hosts) if settings.strict else None
            try:
                return await self._open(visitor, {"known_hosts": known})
            except asyncssh.HostKeyNotVerifiable as error:
                shown = f" {fingerprint(visitor.offered)}" if visitor.offered else ""
                raise HostKeyError(
                    f"the host key{shown} of the jump host {address} is not in your known_hosts; dstack did not log in",
                    hint=ssh_command(address),
                ) from error


@asynccontextmanager
async def _visiting(address: Address, identity: str | None = None) -> AsyncIterator[_Visitor]:
    """Read the settings for a visit in the body. What goes wrong becomes a HostError: no command was sent."""
    try:
        yield _Visitor(await asyncio.to_thread(read_settings, address), identity)
    except TROUBLE as error:
        raise host_error(error, address) from error


class _Visitor(asyncssh.SSHClient):
    """Remembers a host key that was not accepted, and offers one more login key after all others were refused."""

    def __init__(self, settings: SshSettings, identity: str | None) -> None:
        self.settings = settings
        self.offered: str | None = None
        self.connection: asyncssh.SSHClientConnection | None = None
        self._identity = identity

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self.connection = conn

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = public_text(key)
        return False

    def public_key_auth_requested(self) -> str | None:
        identity, self._identity = self._identity, None
        return identity


def _only(keys: list[asyncssh.SSHKey], *, first: list[asyncssh.SSHKey]) -> dict[str, Any]:
    """Return asyncssh's arguments to accept only these host keys. Types other than those of `first` are requested
    last: a changed key is then reported as such, and not as a failed negotiation."""
    preferred = [name.decode() for key in first for name in key.sig_algorithms]
    algorithms = dict.fromkeys(name for name in (*preferred, *_KEY_ALGORITHMS) if name != "ssh-rsa")
    return {"known_hosts": (keys, [], []), "server_host_key_algs": list(algorithms)}


def _hop(text: str, before: str | None) -> Address:
    try:
        return structs.replace(Address.parse(text.removeprefix("ssh://")), jump=before)
    except ValueError as error:
        raise HostError(f"the jump host is not valid: {error}") from error


def _refused(settings: SshSettings, keys: list[asyncssh.SSHKeyPair]) -> HostAuthError:
    tried = ", ".join(key_name(key) for key in keys) or "none found"
    locked = settings.keys.locked
    also = "".join(f"; {path} has a passphrase and no agent holds it" for path in locked)
    also += "".join(f"; {problem}" for problem in settings.keys.unusable)
    provider = settings.provider
    also += f"; the keys of PKCS11Provider {provider} can only be used through an agent" if provider else ""
    unlock = f"ssh-add {locked[0]}, then " if locked else f"ssh-add -s {provider}, then " if provider else ""
    return HostAuthError(
        f"{settings.address} refused the login of {settings.user}; keys tried: {tried}{also}",
        hint=f"{unlock}{ssh_command(settings.address)}",
    )
