"""Where messages go, in the API and in `--json`."""

from __future__ import annotations

from msgspec import Struct


class NotifyTarget(Struct, frozen=True, kw_only=True):
    """A URL that gets messages, masked. `owner` is the member whose runs they are about, None for everybody's.

    `failures` counts the failed tries since the last message that arrived at `sent_at`; they go on since
    `failing_since`, `trouble` says why, and the next one is at `again_at`. `dead`: it has failed for so long that
    somebody has to look. `dropped` messages were too many or too old. `waiting` messages are still to be sent.
    """

    number: int
    kind: str
    url: str
    owner: str | None = None
    added_at: str
    waiting: int = 0
    sent_at: str | None = None
    failures: int = 0
    failing_since: str | None = None
    again_at: str | None = None
    trouble: str | None = None
    dead: bool = False
    dropped: int = 0


class AddNotify(Struct, kw_only=True):
    """The body of `POST /notify`. For a webhook, the part after `#` may be the key that signs its messages."""

    url: str


class AddedNotify(Struct, kw_only=True):
    """The response of `POST /notify`. `key` signs the messages of a webhook; it is never shown again."""

    target: NotifyTarget
    key: str | None = None


class TestNotify(Struct, kw_only=True):
    """The body of `POST /notify/test`: a URL, the number of a target, or neither for all."""

    url: str | None = None
    number: int | None = None


class NotifyResult(Struct, kw_only=True):
    """What came of a test message: the other side's answer, or why there is none."""

    url: str
    kind: str
    ok: bool
    answer: str
