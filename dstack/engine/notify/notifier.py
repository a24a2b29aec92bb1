"""Sends what is in the outbox: in order for each target, again after growing pauses, and never in a job's way."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial

from anyio import move_on_after
from msgspec.structs import replace

from dstack.engine.context import ANYTHING, Context
from dstack.engine.notify.messages import LOOK, Messages
from dstack.errors import DstackError
from dstack.model.api.notify import NotifyTarget
from dstack.model.notify.message import TEST, Message, MessageFacts
from dstack.model.notify.target import Kind, Target, parse
from dstack.model.text.units import rfc3339, seconds
from dstack.notify.addresses import Allowed
from dstack.notify.send import Delivery, deliver, in_thread
from dstack.store.tables.notify import EVERYBODY

PAUSES = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Seconds after each failed try in a row; the last one for all that follow."""
DEAD = 5
"""Failed tries in a row after which somebody has to look."""
REFUSALS = 5
"""Tries after which a message is given up that the other side got and refused."""
OLDEST = 86400.0
"""Seconds after which a message that could not be sent is given up."""
AT_ONCE = 8
"""How many targets are sent to at once."""

Send = Callable[[Message, Target, str, Allowed], Delivery]


class Notifier:
    """Derives messages from events and sends them. All its state is in the store."""

    def __init__(self, context: Context, send: Send = deliver, clock: Callable[[], float] = time.time) -> None:
        self.context, self.send, self.clock = context, send, clock
        self.store = context.store
        self.messages = Messages(context.store, clock)
        self.sending: set[int] = set()
        self.gate = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        """Do so for ever."""
        while True:
            bell = self.context.events.subscribe(ANYTHING)
            await self.messages.derive_all()
            self.messages.look(time.monotonic())
            self.start()
            with move_on_after(LOOK):
                await bell.wait()

    def start(self) -> None:
        """Send to each target that has messages, unless that is being done or has to pause."""
        for target in self.store.notify_targets.all():
            name = f"sending messages to notify URL {target.number}"
            ready = target.waiting and target.number not in self.sending and self.due(target)
            if ready and not self.context.tasks.resting(name):
                self.sending.add(target.number)
                self.context.tasks.start(name, partial(self.serve, target.number), once=True)

    def due(self, target: NotifyTarget) -> bool:
        """Whether it is time for the next try. A pause that is longer than any comes from a clock that was set."""
        left = seconds(target.again_at) - self.clock() if target.again_at else 0
        return left <= 0 or left > PAUSES[-1]

    async def serve(self, number: int) -> None:
        """Send what waits for a target, until there is nothing more or a try fails."""
        try:
            async with self.gate:
                while head := self.store.outbox.next(number):
                    row, message = head
                    if not self.record(number, row, await self.attempt(number, message)):
                        return
        finally:
            self.sending.discard(number)

    async def attempt(self, number: int, message: Message) -> Delivery:
        """Send one message to a target."""
        try:
            target = parse(self.store.notify_targets.url(number))
            return await self.deliver(message, target, self.owner(number))
        except DstackError as error:
            return Delivery(False, error.message)

    def owner(self, number: int) -> str:
        target = self.store.notify_targets.get(number)
        return (target and target.owner) or EVERYBODY

    async def deliver(self, message: Message, target: Target, owner: str) -> Delivery:
        """Send one message for an owner, who may not go everywhere. Raises DstackError if it can't even be tried."""
        route = self.by_mail(target)
        password = self.store.secrets.require(route.password) if route.kind is Kind.MAIL and route.user else ""
        allowed = None if owner == EVERYBODY else {(each.host, each.port) for each in self.of_admins()}
        return await in_thread(partial(self.send, message, route, password, allowed))

    def by_mail(self, target: Target) -> Target:
        """Return a `mailto:` target with the mail server of the first smtp URL of an admin, else of this machine."""
        if target.host:
            return target
        known = (each for each in self.of_admins() if each.kind in (Kind.SERVER, Kind.MAIL) and each.host)
        server = next(known, replace(target, host="localhost"))
        return replace(server, kind=Kind.MAIL, to=target.to)

    def of_admins(self) -> list[Target]:
        found = self.store.notify_targets.of(EVERYBODY)
        return [parse(self.store.notify_targets.url(target.number)) for target in found]

    def record(self, number: int, row: int, answer: Delivery) -> bool:
        """Record how a try went; return whether to go on with the next message."""
        now, target = self.clock(), self.store.notify_targets.get(number)
        if target is None:
            return False
        if answer.ok:
            self.store.outbox.sent(number, row, now)
            return True
        failures = target.failures + 1
        pause = max(PAUSES[min(failures, len(PAUSES)) - 1], answer.again or 0.0)
        with self.store.database.transaction():
            self.store.outbox.failed(number, answer.words, now, pause, dead=answer.gone or failures >= DEAD)
            if answer.gone or (answer.refused and failures % REFUSALS == 0):
                self.store.outbox.drop(number, row, answer.words)
            self.store.outbox.expire(number, now - OLDEST)
        return False

    async def test(self, target: Target, owner: str) -> Delivery:
        """Send a test message to a target."""
        facts = MessageFacts(text="dstack sends its messages here", command="dstack notify list")
        now = rfc3339(self.clock())
        message = Message(id=f"msg_{secrets.token_hex(16)}", type=TEST, timestamp=now, data=facts)
        try:
            return await self.deliver(message, target, owner)
        except DstackError as error:
            return Delivery(False, error.message)
