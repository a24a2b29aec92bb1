"""Where messages go: an admin's URLs get those about all runs, a member's those about their own."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from dstack.engine.notify.notifier import Notifier
from dstack.errors import ForbiddenError, UsageError
from dstack.model.api.notify import AddedNotify, AddNotify, NotifyResult, NotifyTarget, TestNotify
from dstack.model.api.tokens import Role
from dstack.model.notify.target import Kind, Target, parse, shown_key, with_key
from dstack.notify.send import Delivery
from dstack.server.roles import admins_only, caller
from dstack.store.tables.notify import EVERYBODY, unknown

KEY_BYTES = 32


@dataclass
class NotifyRoutes:
    notifier: Notifier

    def all(self) -> list[NotifyTarget]:
        """Return the targets that the caller may see: a member's own, or all."""
        targets = self.notifier.store.notify_targets
        return targets.of(owner()) if owner() else targets.all()

    def add(self, wish: AddNotify) -> AddedNotify:
        """Add a target. A webhook without a key gets one, which is in the response only."""
        target, url = parse(wish.url), wish.url
        self.check(target)
        key = None
        if target.kind is Kind.WEBHOOK and not target.key:
            known = self.known(url)
            url = known or with_key(url, secrets.token_bytes(KEY_BYTES))
            key = None if known else shown_key(parse(url).key)
        return AddedNotify(target=self.notifier.store.notify_targets.add(url, target, owner()), key=key)

    def known(self, url: str) -> str | None:
        """Return the caller's target with this URL, with its key."""
        targets = self.notifier.store.notify_targets
        urls = (targets.url(target.number) for target in targets.of(owner()))
        return next((each for each in urls if each.partition("#")[0] == url), None)

    def check(self, target: Target) -> None:
        """Raise an error for a target that could never get a message."""
        if target.kind is Kind.SERVER and owner():
            raise admins_only(caller(), "name a mail server; add ?to=ADDRESS")
        if target.kind in (Kind.MAIL, Kind.SERVER) and target.user:
            self.notifier.store.secrets.require(target.password)

    def remove(self, number: int) -> NotifyTarget:
        found = self.require(number)
        self.notifier.store.notify_targets.remove(number)
        return found

    def clear(self) -> list[NotifyTarget]:
        """Remove all targets of the caller: an admin's are those of the server, not those of members."""
        targets = self.notifier.store.notify_targets
        found = targets.of(owner())
        for target in found:
            targets.remove(target.number)
        return found

    def require(self, number: int) -> NotifyTarget:
        """Return a target that the caller may see. Raises NotFoundError."""
        found = next((target for target in self.all() if target.number == number), None)
        if found is None:
            raise unknown(number)
        return found

    async def test(self, wish: TestNotify) -> list[NotifyResult]:
        """Send a test message to a URL, or to the caller's targets, and return what the other side answered."""
        if wish.url is not None:
            target = parse(wish.url)
            self.check(target)
            keyed = parse(with_key(wish.url, secrets.token_bytes(KEY_BYTES))) if unsigned(target) else target
            return [await self.tried(keyed, owner())]
        targets = self.notifier.store.notify_targets
        chosen = [self.require(wish.number)] if wish.number is not None else targets.of(owner())
        if not chosen:
            raise UsageError("no notify URL is set", hint="dstack config --notify URL")
        return [await self.tried(parse(targets.url(each.number)), each.owner or EVERYBODY) for each in chosen]

    async def tried(self, target: Target, whose: str) -> NotifyResult:
        answer = Delivery(True, "names the mail server for mailto: URLs") if target.kind is Kind.SERVER else None
        answer = answer or await self.notifier.test(target, whose)
        return NotifyResult(url=target.masked, kind=target.kind.value, ok=answer.ok, answer=answer.words)


def unsigned(target: Target) -> bool:
    return target.kind is Kind.WEBHOOK and not target.key


def owner() -> str:
    """Return whose targets the caller adds. Raises ForbiddenError for a member whom no token names."""
    if caller().role is not Role.MEMBER:
        return EVERYBODY
    name = caller().name
    if name is None:
        raise ForbiddenError("only a personal token can have notify URLs", hint="ask an admin for one")
    return name
