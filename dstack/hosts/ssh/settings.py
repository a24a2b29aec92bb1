"""The settings that ssh would use for an address: its configuration, keys and known hosts."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import asyncssh

from dstack.errors import HostAuthError, HostError
from dstack.hosts.ssh.failures import TROUBLE, host_error
from dstack.hosts.ssh.keys import UserKeys
from dstack.hosts.ssh.openssh import read_options
from dstack.model.runner.runner import Address


@dataclass(frozen=True)
class SshSettings:
    """Options of ssh_config(5) for one address.

    `jump` is a comma-separated list of hosts, as in ProxyJump; `proxy` is the argv of a ProxyCommand. `agent` is a
    socket, and `agent_keys` the only keys of it to use, None for all. `timeout` (ConnectTimeout) and `keepalive`
    (ServerAliveInterval) are seconds, None where the configuration sets none. `strict` is False for
    `StrictHostKeyChecking no`. `provider` is a library with keys (PKCS11Provider), which only an agent can use.
    """

    address: Address
    host: str
    port: int
    user: str
    alias: str | None
    jump: str | None
    proxy: list[str] | None
    timeout: float | None
    known_hosts: tuple[Path, ...]
    strict: bool
    keys: UserKeys
    agent: str | None
    agent_keys: list[bytes] | None
    family: int
    local: tuple[str, int] | None
    keepalive: float | None
    keepalives: int
    provider: str | None

    def read_known_hosts(self) -> asyncssh.SSHKnownHosts:
        """Read all valid entries; blocks. Invalid lines and unreadable files are skipped, as ssh does."""
        known = asyncssh.SSHKnownHosts()
        for path in self.known_hosts:
            with suppress(OSError):
                for line in path.read_text(errors="replace").splitlines():
                    with suppress(ValueError):
                        known.load(line)
        return known

    def listed_keys(self) -> tuple[list[asyncssh.SSHKey], list[asyncssh.SSHKey], list[asyncssh.SSHKey]]:
        """Return the keys that known_hosts lists for the machine's name and port, those of its certificate authorities,
        and the revoked ones; blocks."""
        port = self.port if self.port != 22 else None
        keys, authorities, revoked, *_ = self.read_known_hosts().match(self.alias or self.host, "", port)
        return [key for key in keys if key not in revoked], list(authorities), list(revoked)


def read_settings(address: Address) -> SshSettings:
    """Read the configuration and the keys; blocks. HostError if the configuration is broken, HostAuthError if the
    address's identity is not a usable key."""
    try:
        options = read_options(address)
        keys = UserKeys.read(_identities(address, options["identityfile"]), _paths(options["certificatefile"]))
    except TROUBLE as error:
        raise host_error(error, address) from error
    if address.identity and keys.unusable:
        raise HostAuthError(f"{address}: {keys.unusable[0]}", hint="to name a private key, add --identity FILE")

    def first(name: str) -> str:
        return next(iter(options.get(name, ())), "")

    def number(name: str, default: int) -> int:
        return int(first(name)) if re.fullmatch("[0-9]{1,10}", first(name)) else default

    # a path may contain spaces: ssh prints it without quotes
    lists = [re.split(" (?=[/~])", first(name)) for name in ("userknownhostsfile", "globalknownhostsfile")]
    proxy, local = first("proxycommand"), first("bindaddress")
    if proxy and first("proxyusefdpass") == "yes":
        raise HostError(
            f"{address}: ProxyUseFdpass is not supported; set it to no, and have ProxyCommand pass the data"
        )
    families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
    only = bool(address.identity) or first("identitiesonly") == "yes"
    return SshSettings(
        address=address,
        host=first("hostname"),
        port=number("port", 22),
        user=first("user"),
        alias=first("hostkeyalias") or None,
        jump=first("proxyjump") or None,
        proxy=["sh", "-c", f"exec {proxy}"] if proxy else None,
        timeout=float(number("connecttimeout", 0)) or None,
        known_hosts=tuple(_paths(filter(None, chain(*lists)))),
        strict=first("stricthostkeychecking") != "false",
        keys=keys,
        agent=_agent(options.get("identityagent", ["SSH_AUTH_SOCK"])),
        agent_keys=keys.public if only and (keys.public or not keys.locked) else None,
        family=families.get(first("addressfamily"), socket.AF_UNSPEC),
        local=(local, 0) if local else None,
        keepalive=float(number("serveraliveinterval", 0)) or None,
        keepalives=number("serveralivecountmax", 3),
        provider=first("pkcs11provider") or None,
    )


def _identities(address: Address, configured: list[str]) -> list[Path]:
    """The key files to try. ssh looks for `~/.ssh/id_*` without being asked to: they need not exist."""
    if address.identity:
        return _paths([address.identity])
    return [path for path in _paths(configured) if path.exists() or not path.name.startswith("id_")]


def _agent(named: list[str]) -> str | None:
    agent = next(iter(named), "")
    if agent == "SSH_AUTH_SOCK" or agent.startswith("$"):
        return os.environ.get(agent.strip("${}")) or None
    return str(Path(agent).expanduser()) if agent else None


def _paths(names: Iterable[str]) -> list[Path]:
    return [Path(name).expanduser() for name in names]
