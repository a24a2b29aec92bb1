"""Opens SSH connections: shares bastions, limits simultaneous handshakes, and verifies every host key."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import asyncssh

from dstack.errors import HostAuthError, HostError, HostKeyError
from dstack.hosts.ssh.failures import TROUBLE, host_error, ssh_command
from dstack.hosts.ssh.keys import UserKeys, agent_keys, key_name
from dstack.hosts.ssh.known import authorities, known_keys, public_text, read_known_hosts
from dstack.hosts.ssh.settings import SshSettings, read_settings
from dstack.hosts.ssh.shared import Shared
from dstack.hosts.ssh.tcp import Direct
from dstack.model.runner.runner import Address, fingerprint

_KEY_ALGORITHMS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_CERTIFICATES = [f"{name}-cert-v01@openssh.com" for name in _KEY_ALGORITHMS]
_CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,aes128-ctr"

_SESSION: dict[str, Any] = {
    "config": None,
    "encoding": None,
    "command": None,
    "request_pty": False,
    "send_env": None,
    "agent_forwarding": False,
    "x11_forwarding": False,
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
    """

    def __init__(self, *, keepalive: float = 10.0, keepalives: int = 3, timeout: float = 15.0, starts: int = 8) -> None:
        self._keepalive = keepalive
        self._keepalives = keepalives
        self._timeout = timeout
        self._starts = starts
        self._gates: dict[tuple[str, int], asyncio.Semaphore] = {}
        self._bastions: dict[tuple[str, str | None], _Bastion] = {}

    async def dial(self, address: Address, host_key: str, name: str = "NAME") -> asyncssh.SSHClientConnection:
        """Connect to the machine with this host key. `name` is the runner's name, for the hint if the key changed."""
        visitor = _Visitor()
        settings = await asyncio.to_thread(read_settings, address)
        try:
            pinned = asyncssh.import_public_key(host_key)
            return await self._open(address, settings, visitor, _only([pinned], first=[pinned]))
        except asyncssh.HostKeyNotVerifiable as error:
            raise _changed(address, host_key, visitor.offered, name) from error
        except TROUBLE as error:
            raise host_error(error, address) from error

    async def offered_key(self, address: Address) -> str:
        """Return the public host key that the machine presents, preferably of a type that known_hosts lists for it.
        Does not log in."""
        visitor = _Visitor()
        settings = await asyncio.to_thread(read_settings, address)
        known = await asyncio.to_thread(known_keys, settings)
        try:
            connection = await self._open(address, settings, visitor, _only([], first=known))
            connection.abort()
        except asyncssh.HostKeyNotVerifiable as error:
            if visitor.offered is not None:
                return visitor.offered
            raise host_error(error, address) from error
        except TROUBLE as error:
            raise host_error(error, address) from error
        raise HostKeyError(f"{address} did not present a host key")

    async def certified_key(self, address: Address) -> str | None:
        """Return the machine's public host key if a certificate authority in known_hosts certified it for this host,
        else None. Does not log in."""
        visitor = _Visitor()
        settings = await asyncio.to_thread(read_settings, address)
        certifying, revoked = await asyncio.to_thread(authorities, settings)
        if not certifying:
            return None
        nobody = replace(settings, keys=UserKeys(), agent=None)
        trust = {"known_hosts": ([], certifying, revoked), "server_host_key_algs": _CERTIFICATES}
        try:
            (await self._open(address, nobody, visitor, trust)).abort()
        except HostAuthError:
            pass  # the certificate is valid
        except (asyncssh.KeyExchangeFailed, asyncssh.HostKeyNotVerifiable):
            return None  # no certificate, or an invalid one
        except TROUBLE as error:
            raise host_error(error, address) from error
        shown = visitor.connection and visitor.connection.get_server_host_key()
        return public_text(shown) if shown else None

    async def close(self) -> None:
        """Close the connections to bastions."""
        bastions, self._bastions = tuple(self._bastions.values()), {}
        for bastion in bastions:
            await bastion.close()

    async def _open(
        self, address: Address, settings: SshSettings, visitor: _Visitor, trust: dict[str, Any]
    ) -> asyncssh.SSHClientConnection:
        gate = self._gates.setdefault((settings.host, settings.port), asyncio.Semaphore(self._starts))
        for attempt in range(1, _TRIES + 1):
            try:
                tunnel = await self._way(address, settings)
                async with gate:
                    return await self._attempt(address, settings, visitor, trust, tunnel)
            except _RESET as error:
                if attempt == _TRIES:
                    raise host_error(error, address) from error
            await asyncio.sleep(min(1.0, 0.05 * 2**attempt) * random.uniform(0.5, 1.5))
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(
        self, address: Address, settings: SshSettings, visitor: _Visitor, trust: dict[str, Any], tunnel: Any
    ) -> asyncssh.SSHClientConnection:
        timeout = settings.timeout or self._timeout
        async with agent_keys(settings.agent, settings.agent_keys) as held:
            in_files = {pair.public_data for pair in settings.keys.pairs}
            keys = [*settings.keys.pairs, *(key for key in held if key.public_data not in in_files)]
            try:
                return await asyncssh.connect(
                    settings.host,
                    settings.port,
                    username=settings.user,
                    host_key_alias=settings.alias,
                    **_SESSION,
                    keepalive_interval=settings.keepalive or self._keepalive,
                    keepalive_count_max=settings.keepalives if settings.keepalive else self._keepalives,
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
                raise _refused(address, settings, keys) from error

    async def _way(self, address: Address, settings: SshSettings) -> Any:
        """Return asyncssh's `tunnel` argument: the bastion's connection, or how to connect without one."""
        hops = [hop.strip() for hop in (settings.jump or "").split(",") if hop.strip()]
        hop = _hop(hops[-1], None) if hops else None
        if hop and (hop.host, hop.port) != (
            address.host,
            address.port,
        ):  # `Host *` with a ProxyJump matches the hop too
            key = (",".join(hops), address.identity)
            return await self._bastions.setdefault(key, _Bastion()).connection(self, key)
        return None if settings.proxy else Direct(settings.family, settings.local)

    async def bastion(self, hops: str, identity: str | None) -> asyncssh.SSHClientConnection:
        """Connect to the last of these hosts through the ones before it. Its key must be in known_hosts. `identity` is
        tried after the keys that the configuration names for it."""
        before, _, last = hops.rpartition(",")
        address = _hop(last, before or None)
        visitor = _Visitor(identity)
        settings = await asyncio.to_thread(read_settings, address)
        known = await asyncio.to_thread(read_known_hosts, settings) if settings.strict else None
        try:
            return await self._open(address, settings, visitor, {"known_hosts": known})
        except asyncssh.HostKeyNotVerifiable as error:
            raise _unknown(address, visitor.offered) from error
        except TROUBLE as error:
            raise host_error(error, address) from error


class _Bastion:
    """The one connection to a jump host."""

    def __init__(self) -> None:
        self._attempt: Shared[asyncssh.SSHClientConnection] = Shared()
        self._connection: asyncssh.SSHClientConnection | None = None

    async def connection(self, dialer: Dialer, key: tuple[str, str | None]) -> asyncssh.SSHClientConnection:
        if self._connection is None or self._connection.is_closed():
            self._connection = await self._attempt.result(lambda: dialer.bastion(*key))
        return self._connection

    async def close(self) -> None:
        await self._attempt.cancel()
        if self._connection is not None:
            self._connection.abort()
            await self._connection.wait_closed()


class _Visitor(asyncssh.SSHClient):
    """Remembers a host key that was not accepted, and offers one more login key after all others were refused."""

    def __init__(self, identity: str | None = None) -> None:
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
        address = Address.parse(text.removeprefix("ssh://"))
    except ValueError as error:
        raise HostError(f"the jump host is not valid: {error}") from error
    return Address(host=address.host, user=address.user, port=address.port, jump=before)


def _changed(address: Address, pinned: str, offered: str | None, name: str) -> HostKeyError:
    shown = fingerprint(offered) if offered else "a key that can't be read"
    return HostKeyError(
        f"{address}: the host key changed from {fingerprint(pinned)} to {shown}; dstack did not log in",
        hint=f"if the machine was reinstalled: dstack runners remove {name}, then dstack runners add {address}",
    )


def _unknown(address: Address, offered: str | None) -> HostKeyError:
    shown = f" {fingerprint(offered)}" if offered else ""
    return HostKeyError(
        f"the host key{shown} of the jump host {address} is not in your known_hosts; dstack did not log in",
        hint=ssh_command(address),
    )


def _refused(address: Address, settings: SshSettings, keys: list[asyncssh.SSHKeyPair]) -> HostAuthError:
    tried = ", ".join(key_name(key) for key in keys) or "none found"
    locked = settings.keys.locked
    also = "".join(f"; {path} has a passphrase and no agent holds it" for path in locked)
    also += "".join(f"; {problem}" for problem in settings.keys.unusable)
    unlock = f"ssh-add {locked[0]}, then " if locked else ""
    return HostAuthError(
        f"{address} refused the login of {settings.user}; keys tried: {tried}{also}",
        hint=f"{unlock}{ssh_command(address)}",
    )
