"""The public keys that dstack knows without asking a machine. asyncssh is imported on use."""

from __future__ import annotations

import contextlib
from pathlib import Path

from msgspec.structs import replace

from dstack.model.runner.runner import Address
from dstack.plumbing import disk


def known_keys(address: Address) -> list[str]:
    """Return the public keys in the user's and the system's known_hosts files for the machine, under the name, port
    and alias from ssh's configuration. Reads files."""
    from dstack.hosts.ssh.keys import public_text
    from dstack.hosts.ssh.settings import read_settings

    keys, *_ = read_settings(address).listed_keys()
    return [public_text(key) for key in keys]


def own_key(path: Path) -> str:
    """Return the public key (type and base64) of the server's private key in this file. Generates a missing one."""
    import asyncssh

    from dstack.hosts.ssh.keys import public_text

    if not path.exists():
        disk.write(path, asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    return public_text(asyncssh.read_private_key(str(path)))


def own_host_keys() -> frozenset[str]:
    """Return the public host keys (type and base64) of this machine's own SSH server; none if they can't be read."""
    found = set()
    for path in Path("/etc/ssh").glob("ssh_host_*_key.pub"):
        with contextlib.suppress(OSError, ValueError):
            found.add(" ".join(path.read_text().split()[:2]))
    return frozenset(found)


def login(address: Address) -> str:
    """Return the user that ssh would log in as; "" for the server's own machine. Reads files; HostError if it can't."""
    if address.local:
        return ""
    from dstack.hosts.ssh.settings import read_settings

    return read_settings(replace(address, identity=None)).user
