"""The client's part for notify URLs."""

from __future__ import annotations

from dstack.client.connection import WORK_SECONDS, Connection
from dstack.model.api.notify import AddedNotify, AddNotify, NotifyResult, NotifyTarget, TestNotify


class NotifyCalls(Connection):
    """The routes below /notify."""

    def notify_targets(self) -> list[NotifyTarget]:
        """Return the targets that the caller may see."""
        return self._get("/notify", list[NotifyTarget])

    def add_notify(self, url: str) -> AddedNotify:
        """Add a target. Only this response has the key of a webhook."""
        return self._post("/notify", AddedNotify, AddNotify(url=url))

    def remove_notify(self, number: int) -> NotifyTarget:
        """Remove a target, and return it."""
        return self._decode(self._send("DELETE", f"/notify/{number}", WORK_SECONDS), NotifyTarget)

    def clear_notify(self) -> list[NotifyTarget]:
        """Remove all targets of the caller, and return them."""
        return self._post("/notify/clear", list[NotifyTarget])

    def test_notify(self, wish: TestNotify) -> list[NotifyResult]:
        """Send test messages, and return what came of them."""
        return self._post("/notify/test", list[NotifyResult], wish)
