"""The hosts in use, one per runner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from dstack.commands.host import Host
from dstack.hosts.local import LocalHost
from dstack.model.runner.runner import Address, Runner

if TYPE_CHECKING:
    from dstack.hosts.ssh.dial import Dialer


class Pool:
    """Creates a runner's host on first use and keeps it. asyncssh is imported when the first runner needs SSH."""

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[tuple[Address, str | None], Host]] = {}
        self._dialer: Dialer | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, runner: Runner) -> Host:
        """Return the runner's host; a new one if the runner's address or host key has changed. Needs a running event
        loop."""
        identity = (runner.address, runner.host_key)
        known = self._hosts.get(runner.name)
        if known is not None:
            if known[0] == identity:
                return known[1]
            self._close_aside(known[1])
        host = self.anew(runner)
        self._hosts[runner.name] = (identity, host)
        return host

    def anew(self, runner: Runner) -> Host:
        """Return another host for the runner, which logs in once more. The caller closes it."""
        if runner.address.local:
            return LocalHost()
        from dstack.hosts.ssh.host import SshHost

        return SshHost(runner.address, runner.host_key or "", name=runner.name, dialer=self.dialer)

    @property
    def dialer(self) -> Dialer:
        """What opens all of its SSH connections."""
        from dstack.hosts.ssh.dial import Dialer

        if self._dialer is None:
            self._dialer = Dialer()
        return self._dialer

    async def close(self, name: str) -> None:
        """Close the connections to the runner, if any."""
        known = self._hosts.pop(name, None)
        if known is not None:
            await known[1].close()

    async def close_all(self) -> None:
        """Close all connections."""
        for name in tuple(self._hosts):
            await self.close(name)
        if self._closing:
            await asyncio.wait(tuple(self._closing))
        if self._dialer is not None:
            await self._dialer.close()
            self._dialer = None

    def _close_aside(self, host: Host) -> None:
        task = asyncio.ensure_future(host.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
