"""Who gets messages, and the outbox with the messages that are still to be sent."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from dstack.errors import ConflictError, NotFoundError
from dstack.model.api import wire
from dstack.model.api.notify import NotifyTarget
from dstack.model.job.status import FINISHED
from dstack.model.notify.message import Message
from dstack.model.notify.target import Kind, Target
from dstack.model.text.units import rfc3339
from dstack.store.database import Database, encoded
from dstack.store.tables.events import EventLog, RecordedTable
from dstack.store.tables.settings import Secrets, Settings

EVERYBODY = ""
"""In place of an owner: the target gets messages about everybody's runs."""
MOST_TARGETS = 100
MOST_OWN = 10
"""How many targets there may be, and how many of one member."""
MOST_MESSAGES = 1000
"""How many messages may wait for one target. The oldest give way."""
ENDS = frozenset({f"job.{status.value}" for status in FINISHED})
"""The kinds of events with which a job ends."""
CURSOR = "notify_event"
"""The setting with the id of the newest event whose messages are in the outbox."""


class NotifyTargets(RecordedTable):
    """The targets. Their URLs are encrypted like secrets; what is shown of them is masked."""

    def __init__(self, database: Database, events: EventLog, secrets: Secrets) -> None:
        super().__init__(database, events)
        self.secrets = secrets

    def add(self, url: str, target: Target, owner: str) -> NotifyTarget:
        """Record a target. The same URL of the same owner is replaced and keeps its number. Raises ConflictError if
        there are too many."""
        with self.database.transaction():
            known = next((each for each in self.of(owner) if _plain(self.url(each.number)) == _plain(url)), None)
            if known is None and self._full(owner):
                raise ConflictError("there are too many notify URLs already", hint="dstack notify remove NUMBER")
            number = known.number if known else self._next()
            added = NotifyTarget(
                number=number,
                kind=target.kind.value,
                url=target.masked,
                owner=owner or None,
                added_at=rfc3339(time.time()),
            )
            self.database.execute(
                "INSERT INTO notify_targets (number, owner, url, after, data) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (number) DO UPDATE SET url = excluded.url, data = excluded.data",
                (number, owner, self.secrets.sealed(url), self.events.last, encoded(added)),
            )
            self.events.add("notify.added", data={"number": number, "url": added.url})
        return added

    def _full(self, owner: str) -> bool:
        return len(self.of(owner)) >= MOST_OWN if owner else len(self.all()) >= MOST_TARGETS

    def _next(self) -> int:
        used: int | None = self.database.value("SELECT seq FROM sqlite_sequence WHERE name = 'notify_targets'")
        return (used or 0) + 1

    def any(self) -> bool:
        """Whether there is a target."""
        return self.database.value("SELECT 1 FROM notify_targets LIMIT 1") is not None

    def all(self) -> list[NotifyTarget]:
        """Return all targets, oldest first."""
        return self._select("TRUE")

    def of(self, owner: str) -> list[NotifyTarget]:
        """Return the targets of one owner."""
        return self._select("owner = ?", owner)

    def _select(self, condition: str, *values: Any) -> list[NotifyTarget]:
        count = "(SELECT count(*) FROM notify_messages WHERE target = notify_targets.number)"
        sql = f"SELECT data, {count} FROM notify_targets WHERE {condition} ORDER BY number"

        def read() -> list[NotifyTarget]:
            return [
                msgspec.structs.replace(wire.decode(data.encode(), NotifyTarget), waiting=waiting)
                for data, waiting in self.database.rows(sql, *values)
            ]

        return self.database.readable(read)

    def listeners(self, user: str, event: int) -> list[int]:
        """Return the targets that get messages about an event of this user's run: those that existed before it."""
        sql = (
            "SELECT number FROM notify_targets WHERE owner IN (?, ?) AND after < ?"
            " AND json_extract(data, '$.kind') != ? ORDER BY number"
        )
        return self.database.column(sql, EVERYBODY, user, event, Kind.SERVER.value)

    @property
    def after(self) -> int:
        """The id of the newest event that no target gets messages about."""
        return self.database.value("SELECT min(after) FROM notify_targets") or 0

    def get(self, number: int) -> NotifyTarget | None:
        """Return a target, or None."""
        return next(iter(self._select("number = ?", number)), None)

    def url(self, number: int) -> str:
        """Return a target's URL. Raises NotFoundError, and DstackError if it can't be decrypted."""
        sealed = self.database.value("SELECT url FROM notify_targets WHERE number = ?", number)
        if sealed is None:
            raise unknown(number)
        return self.secrets.opened(sealed)

    def remove(self, number: int) -> None:
        """Forget a target and what waits for it. Raises NotFoundError."""
        with self.database.transaction():
            target = self.get(number)
            if target is None:
                raise unknown(number)
            self.database.execute("DELETE FROM notify_targets WHERE number = ?", (number,))
            self.events.add("notify.removed", data={"number": number, "url": target.url})

    def change(self, number: int, **changes: Any) -> NotifyTarget | None:
        """Set fields of a target. Returns it, or None if it was removed meanwhile."""
        with self.database.transaction():
            target = self.get(number)
            if target is None:
                return None
            after = msgspec.structs.replace(target, **changes)
            self.database.execute("UPDATE notify_targets SET data = ? WHERE number = ?", (encoded(after), number))
        return after


class Outbox(RecordedTable):
    """The messages that are still to be sent, oldest first. A message leaves it in the transaction that records what
    became of it."""

    def __init__(self, database: Database, events: EventLog, targets: NotifyTargets, settings: Settings) -> None:
        super().__init__(database, events)
        self.targets, self.settings = targets, settings

    @property
    def cursor(self) -> int:
        """The id of the newest event whose messages are in the outbox, or were."""
        return int(self.settings.get(CURSOR) or 0)

    def advance(self, event: int, messages: Iterable[tuple[int, Message]] = ()) -> None:
        """Put the messages of all events up to this one into the outbox, each with the number of its target."""
        with self.database.transaction():
            for number, message in messages:
                self.put(number, message)
            self.settings.set(CURSOR, str(event))

    def put(self, number: int, message: Message) -> None:
        """Add a message for a target, in the transaction in progress."""
        self.database.execute(
            "INSERT OR IGNORE INTO notify_messages (target, id, data) VALUES (?, ?, ?)",
            (number, message.id, encoded(message)),
        )
        sql = "SELECT number FROM notify_messages WHERE target = ? ORDER BY number DESC LIMIT -1 OFFSET ?"
        for row in self.database.column(sql, number, MOST_MESSAGES):
            self.drop(number, row, "too many messages waited")

    def next(self, number: int) -> tuple[int, Message] | None:
        """Return the oldest message for a target with its row, or None."""
        sql = "SELECT number FROM notify_messages WHERE target = ? ORDER BY number LIMIT 1"
        row = self.database.value(sql, number)
        if row is None:
            return None
        message = self.database.record(Message, "SELECT data FROM notify_messages WHERE number = ?", row)
        return None if message is None else (row, message)

    def sent(self, number: int, row: int, now: float) -> None:
        """Record that a message arrived."""
        with self.database.transaction():
            target = self.targets.get(number)
            self._remove(number, row, "notify.sent")
            self.targets.change(
                number,
                sent_at=rfc3339(now),
                failures=0,
                failing_since=None,
                again_at=None,
                trouble=None,
                dead=False,
            )
            if target and target.dead:
                self.events.add("notify.recovered", data={"number": number, "url": target.url})

    def failed(self, number: int, words: str, now: float, pause: float, *, dead: bool) -> None:
        """Record that a try failed, that the next is after a pause in seconds, and whether somebody has to look."""
        with self.database.transaction():
            target = self.targets.get(number)
            if target is None:
                return
            if dead and not target.dead:
                self.events.add("notify.failing", data={"number": number, "url": target.url, "trouble": words})
            self.targets.change(
                number,
                failures=target.failures + 1,
                failing_since=target.failing_since or rfc3339(now),
                again_at=rfc3339(now + pause),
                trouble=words,
                dead=target.dead or dead,
            )

    def drop(self, number: int, row: int, why: str) -> None:
        """Give a message up."""
        with self.database.transaction():
            target = self.targets.get(number)
            if self._remove(number, row, "notify.dropped", why) and target:
                self.targets.change(number, dropped=target.dropped + 1)

    def _remove(self, number: int, row: int, kind: str, why: str | None = None) -> bool:
        message = self.database.record(Message, "SELECT data FROM notify_messages WHERE number = ?", row)
        if message is None:
            return False
        self.database.execute("DELETE FROM notify_messages WHERE number = ?", (row,))
        data = {"number": number, "id": message.id, "type": message.type, **({"reason": why} if why else {})}
        self.events.add(kind, run=message.data.run, data=data)
        return True

    def expire(self, number: int, before: float) -> None:
        """Give up the messages for a target that are from before a time, in seconds since the epoch."""
        sql = "SELECT number FROM notify_messages WHERE target = ? AND json_extract(data, '$.timestamp') < ?"
        for row in self.database.column(sql, number, rfc3339(before)):
            self.drop(number, row, "it could not be sent for too long")

    def waits(self, run: str, since: str, messages: Iterable[tuple[int, Message]]) -> None:
        """Record that a run has waited since a time (RFC 3339) for as long as its workflow says, with the messages
        about it."""
        with self.database.transaction():
            self.events.add("run.waiting", run=run, data={"since": since})
            for number, message in messages:
                self.put(number, message)

    def told_to_wait(self, run: str, since: str) -> bool:
        """Whether it is recorded already."""
        sql = "SELECT 1 FROM events WHERE run = ? AND kind = 'run.waiting' AND json_extract(data, '$.since') = ?"
        return self.database.value(sql, run, since) is not None

    def last_end(self, run: str) -> int:
        """Return the id of the newest event with which a job of the run ended."""
        kinds = ", ".join(f"'{kind}'" for kind in sorted(ENDS))
        return self.database.value(f"SELECT max(id) FROM events WHERE run = ? AND kind IN ({kinds})", run) or 0

    def pending(self) -> bool:
        """Whether a message waits for a target that is not dead."""
        return any(target.waiting and not target.dead for target in self.targets.all())


def unknown(number: int) -> NotFoundError:
    return NotFoundError(f"no notify URL has the number {number}", hint="dstack notify list")


def _plain(url: str) -> str:
    """A URL without the key for signatures."""
    return url.partition("#")[0]
