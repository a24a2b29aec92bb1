"""What ssh would use for an address: the user's ~/.ssh/config, keys and known hosts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dstack.errors import HostAuthError
from dstack.hosts.keys import Keys, default_paths
from dstack.hosts.openssh import Flat, read_options
from dstack.hosts.trouble import TROUBLE, host_error
from dstack.model.runner import Address

_USER_KNOWN = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_SYSTEM_KNOWN = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True)
class Settings:
    """`jump` is a list of hosts, as ProxyJump has it; `proxied` tells of a ProxyCommand. `agent` is a socket, and
    `agent_keys` the only ones of it to use, None for all. `timeout` in seconds, if the configuration names one.
    `family` and `local` are AddressFamily and BindAddress; `keepalive` in seconds is ServerAliveInterval, and
    `keepalives` ServerAliveCountMax, where they are named and not 0. `flat` is what asyncssh has to read in place of
    the user's configuration, if that is needed.
    """

    host: str
    port: int
    user: str
    alias: str | None
    jump: str | None
    proxied: bool
    timeout: float | None
    known_hosts: tuple[Path, ...]
    keys: Keys
    agent: str | None
    agent_keys: list[bytes] | None
    family: int = 0
    local: tuple[str, int] | None = None
    keepalive: float | None = None
    keepalives: int | None = None
    flat: Flat | None = None


def named(address: Address) -> dict[str, Any]:
    """The address as asyncssh's arguments: what it leaves out comes from the configuration."""
    return {"host": address.host, "port": address.port or (), "username": address.user or ()}


def read_settings(address: Address) -> Settings:
    """Read the configuration and the keys; blocks. HostError for a broken configuration, HostAuthError for an
    identity that is no key."""
    try:
        options, flat = read_options(address, named(address))
        config: Any = options.config
        keys = Keys.read(_identities(address, config), _paths(config.get("CertificateFile") or ()))
    except TROUBLE as error:
        raise host_error(error, address) from error
    if address.identity and keys.unusable:
        raise HostAuthError(f"{address}: {keys.unusable[0]}", hint="name a private key with --identity")
    only = bool(address.identity or config.get("IdentitiesOnly"))
    return Settings(
        host=options.host,
        port=options.port,
        user=options.username,
        alias=options.host_key_alias,
        jump=address.jump or (options.tunnel if isinstance(options.tunnel, str) else None),
        proxied=bool(options.proxy_command),
        timeout=options.connect_timeout,
        known_hosts=_known_hosts(config),
        keys=keys,
        agent=_agent(config),
        agent_keys=keys.public if only and (keys.public or not keys.locked) else None,
        family=int(options.family),
        local=options.local_addr,
        keepalive=config.get("ServerAliveInterval") or None,
        keepalives=config.get("ServerAliveCountMax") or None,
        flat=flat,
    )


def _identities(address: Address, config: Any) -> list[Path]:
    if address.identity:
        return _paths([address.identity])
    return _paths(config.get("IdentityFile") or ()) or default_paths()


def _known_hosts(config: Any) -> tuple[Path, ...]:
    user = config.get("UserKnownHostsFile", _USER_KNOWN)
    system = config.get("GlobalKnownHostsFile", _SYSTEM_KNOWN)
    return tuple(_paths([*user, *system]))


def _agent(config: Any) -> str | None:
    agent = config.get("IdentityAgent", "SSH_AUTH_SOCK")
    if agent == "SSH_AUTH_SOCK" or agent.startswith("$"):
        return os.environ.get(agent.strip("${}")) or None
    return str(Path(agent).expanduser()) if agent else None


def _paths(names: Any) -> list[Path]:
    return [Path(name).expanduser() for name in names]
