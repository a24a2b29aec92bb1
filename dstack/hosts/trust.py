"""Host keys. asyncssh is imported only to ask a machine or read a file."""

from __future__ import annotations

from dstack.model.runner.runner import Address


async def offered_key(address: Address) -> str:
    """Return the public host key that the machine presents, in OpenSSH's format, preferably of a type that known_hosts
    lists. Does not log in. HostUnreachableError if there is no answer."""
    from dstack.hosts.ssh.dial import Dialer

    dialer = Dialer()
    try:
        return await dialer.offered_key(address)
    finally:
        await dialer.close()


async def certified_key(address: Address) -> str | None:
    """Return the machine's public host key if an authority in known_hosts certified it, as ssh would accept it, else
    None. Does not log in."""
    from dstack.hosts.ssh.dial import Dialer

    dialer = Dialer()
    try:
        return await dialer.certified_key(address)
    finally:
        await dialer.close()


def known_keys(address: Address) -> list[str]:
    """Return the public keys in the user's and the system's known_hosts files for the machine, under the name, port
    and alias from ssh's configuration. Reads files."""
    from dstack.hosts.ssh import known, settings

    return [known.public_text(key) for key in known.known_keys(settings.read_settings(address))]
