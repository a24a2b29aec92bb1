"""The keys by which hosts are known. Imports asyncssh only when a host is asked or a file read."""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256

from dstack.errors import HostKeyError
from dstack.model.runner import Address


def fingerprint(key: str) -> str:
    """The fingerprint of a public key in OpenSSH's format, as ssh-keygen -l prints it: `SHA256:...`."""
    try:
        blob = base64.b64decode(key.split()[1], validate=True)
    except (IndexError, binascii.Error) as error:
        raise HostKeyError(f"{key!r} is not a public key in OpenSSH's format") from error
    return "SHA256:" + base64.b64encode(sha256(blob).digest()).decode().rstrip("=")


async def offered_key(address: Address) -> str:
    """The public host key that the machine shows, in OpenSSH's format, of a type that known_hosts has if there is
    one. Nobody logs in. HostUnreachableError if it can't be asked."""
    from dstack.hosts.dial import Dialer

    dialer = Dialer()
    try:
        return await dialer.offered_key(address)
    finally:
        await dialer.close()


async def certified_key(address: Address) -> str | None:
    """The public host key for which a certificate by an authority of known_hosts stands, as ssh would accept it. Nobody
    logs in."""
    from dstack.hosts.dial import Dialer

    dialer = Dialer()
    try:
        return await dialer.certified_key(address)
    finally:
        await dialer.close()


def known_keys(address: Address) -> list[str]:
    """The public keys that the user's and the system's known_hosts files have for the machine, under the name, port
    and alias that ~/.ssh/config gives it. Reads files."""
    from dstack.hosts import known, settings

    return [known.public_text(key) for key in known.known_keys(settings.read_settings(address))]
