"""A command that runs in a container, after the line that says whether the container runs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dstack.commands.host import Channel
from dstack.errors import HostError

ANSWER = 200
"""Most bytes of the line that comes first."""


class Entered:
    """A command that runs in a container. `output` replaces the channel's stdout. `state` is the container's; the
    command has started only if that is "running"."""

    def __init__(self, channel: Channel, state: str, early: bytes) -> None:
        self.channel, self.state = channel, state
        self._early = early

    @property
    def running(self) -> bool:
        return self.state == "running"

    @property
    def output(self) -> AsyncIterator[bytes]:
        return self._output()

    async def _output(self) -> AsyncIterator[bytes]:
        if self._early:
            yield self._early
        async for piece in self.channel.stdout:
            yield piece


async def entered(channel: Channel) -> Entered:
    """Read the line that comes first. Closes the channel if it does not come."""
    try:
        said = b""
        async for piece in channel.stdout:
            said += piece
            if b"\n" in said or len(said) > ANSWER:
                break
        line, newline, rest = said.partition(b"\n")
        key, _, state = line.decode(errors="replace").strip().partition("=")
        if not newline or key != "state":
            raise HostError(f"the machine did not say whether the container runs: {line[:ANSWER]!r}")
        return Entered(channel, state, rest)
    except BaseException:
        await channel.close()
        raise
