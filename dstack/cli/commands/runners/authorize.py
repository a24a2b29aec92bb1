"""Installs the server's key on a machine, logging in with the keys of the user who runs the command."""

from __future__ import annotations

from dstack.cli.output import show
from dstack.commands.host import ask
from dstack.commands.machine.authorize import authorize
from dstack.errors import ErrorCode, HostKeyError, UsageError
from dstack.hosts.ssh.dial import Dialer
from dstack.hosts.ssh.host import SshHost
from dstack.hosts.trust import known_keys
from dstack.model.api.runners import ServerKey
from dstack.model.runner.runner import Address, fingerprint

SECONDS = 60.0


async def install_key(address: Address, given: str | None, own: ServerKey) -> str:
    """Add the server's key to the machine's authorized_keys. Return the fingerprint of its host key, which is confirmed
    by the `given` fingerprint, by known_hosts or by the user at the terminal."""
    async with Dialer() as dialer:
        key = await dialer.offered_key(address)
        shown = fingerprint(key)
        if given not in (None, shown):
            message = f"{address} shows the host key {shown}, not {given}; nothing was sent to it"
            raise UsageError(message, code=ErrorCode.HOST_KEY)
        if given is None and key not in known_keys(address):
            if certified := await dialer.certified_key(address):
                key, shown = certified, fingerprint(certified)
            elif not (show.interactive() and show.confirm(f"Is {shown} the host key of {address}?")):
                raise HostKeyError(
                    f"the host key of {address} is not trusted yet: {shown}",
                    hint=f"if the key is right, add --fingerprint {shown}",
                )
        host = SshHost(address, key, dialer=dialer)
        try:
            await ask(host, authorize(own.key, own.server), timeout=SECONDS)
        finally:
            await host.close()
        return shown
