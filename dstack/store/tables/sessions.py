"""The web page's sessions, stored as hashes. A session ends with the token that it was opened with."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from dstack.model.api.tokens import Role
from dstack.model.text.units import rfc3339, seconds
from dstack.store.tables.events import RecordedTable
from dstack.store.tables.tokens import USE_RECORDED, hashed

UNUSED = 14 * 86400.0
"""Seconds after which a session that nobody used ends."""
OWNERS_UNUSED = 86400.0
"""The same for a session of the server's owner, which no token's end can end."""
MOST = 200
"""Most sessions per token; the one that was unused for longest makes room."""


@dataclass(frozen=True)
class Session:
    """Who uses the web page: the name of a token, None for the server's owner, and the user that events name."""

    token: str | None
    user: str
    role: Role


class Sessions(RecordedTable):
    """The open sessions."""

    def open(self, token: str | None, user: str) -> str:
        """Open a session for the holder of this token, None for the owner. Returns its secret, for a cookie."""
        secret, now = secrets.token_urlsafe(32), time.time()
        with self.database.transaction():
            self.forget_unused(now)
            self.database.execute(
                "DELETE FROM sessions WHERE hash IN"
                " (SELECT hash FROM sessions WHERE token IS ? ORDER BY used_at DESC LIMIT -1 OFFSET ?)",
                (token, MOST - 1),
            )
            self.database.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?)", (hashed(secret), token, user, rfc3339(now))
            )
            self.events.add("session.opened", actor=user, data={"token": token})
        return secret

    def find(self, secret: str) -> Session | None:
        """Return the session with this secret, and record its use to the minute; None if it has ended."""
        sql = (
            "SELECT sessions.token, user, sessions.used_at, role FROM sessions LEFT JOIN tokens ON token = name"
            " WHERE sessions.hash = ? AND (token IS NULL OR role IS NOT NULL)"
        )
        rows = self.database.rows(sql, hashed(secret))
        if not rows:
            return None
        token, user, used_at, role = rows[0]
        now = time.time()
        age = now - seconds(used_at)
        if age > (OWNERS_UNUSED if token is None else UNUSED):
            return None
        if age >= USE_RECORDED:
            self.database.execute("UPDATE sessions SET used_at = ? WHERE hash = ?", (rfc3339(now), hashed(secret)))
        return Session(token, user, Role.ADMIN if token is None else Role(role))

    def close(self, secret: str) -> None:
        """End a session, if it has not ended yet."""
        with self.database.transaction():
            if self.database.execute("DELETE FROM sessions WHERE hash = ?", (hashed(secret),)).rowcount:
                self.events.add("session.closed")

    def forget_unused(self, now: float) -> None:
        """Remove what has ended because nobody used it. `now` is in seconds since the epoch."""
        limits = (rfc3339(now - UNUSED), rfc3339(now - OWNERS_UNUSED))
        self.database.execute("DELETE FROM sessions WHERE used_at < ? OR (token IS NULL AND used_at < ?)", limits)
