"""Knows when the peer of a connection was last heard, and breaks a connection that has been silent for too long."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh

from dstack.model.text.units import rfc3339
from dstack.plumbing.clock import steady, time_of_day

LATE = 2.0
"""Seconds that an answer may take. On bad Wi-Fi, a lost packet arrives at the second or third try, a second later."""
STEPS = 5
"""How many times in an interval the silence is measured."""
NEVER = 1 << 30
"""Unanswered questions after which asyncssh itself would break the connection; `Pulse` does it earlier."""


class Pulse:
    """Watches one connection, whose asyncssh asks the peer for an answer after each `interval` seconds of silence.
    After `times` unanswered questions the connection breaks. Every byte counts as an answer: on a slow link, the answer
    itself may come after megabytes that were sent before. `answered` is when the last one came (by `steady`, seconds).

    Silence is counted in steps and not by a clock: while this process is stopped or this machine sleeps, nobody asks.
    """

    def __init__(self, connection: asyncssh.SSHClientConnection, interval: float, times: int) -> None:
        self.answered = steady()
        self._connection = connection
        self._step = interval / STEPS
        self._silence = 0.0
        self._late = interval + LATE
        self._most = interval * (times + 1)
        self._receive = connection.data_received
        setattr(connection, "data_received", self._received)  # noqa: B010, mypy
        connection.set_extra_info(pulse=self)
        asyncio.get_running_loop().call_later(self._step, self._tick)

    @property
    def silent(self) -> bool:
        """Whether the peer owes an answer for so long that it is not merely slow."""
        return self._silence >= self._late

    def _received(self, data: bytes, datatype: Any = None) -> None:
        self.answered, self._silence = steady(), 0.0
        self._receive(data, datatype)

    def _tick(self) -> None:
        if self._connection.is_closed():
            return
        self._silence += self._step
        if self._silence > self._most:
            self._connection.connection_lost(
                asyncssh.ConnectionLost(f"no answer since {rfc3339(time_of_day(self.answered))}")
            )
        else:
            asyncio.get_running_loop().call_later(self._step, self._tick)
