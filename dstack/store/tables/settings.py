"""The server's own settings."""

from __future__ import annotations

import secrets

from dstack.store.tables.events import RecordedTable

SERVER_ID = "server_id"
HIDDEN = frozenset({"token"})
"""Settings whose value no event shows."""


class Settings(RecordedTable):
    """Text values by name."""

    def get(self, name: str) -> str | None:
        """Return the value, or None."""
        value: str | None = self.database.value("SELECT value FROM settings WHERE name = ?", name)
        return value

    def set(self, name: str, value: str) -> None:
        """Set a value."""
        with self.database.transaction():
            known = (self.get(name) or "") == value
            self.database.table("settings", pk="name").upsert({"name": name, "value": value})
            if not known and name != SERVER_ID:
                shown = {} if name in HIDDEN else {"value": value}
                self.events.add("config.changed", data={"name": name, **shown})

    @property
    def server_id(self) -> str:
        """The id that keeps this server's files on a host apart from those of other servers. Created once."""
        server_id = self.get(SERVER_ID)
        if server_id is None:
            server_id = secrets.token_hex(4)
            self.set(SERVER_ID, server_id)
        return server_id
