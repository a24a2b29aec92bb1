"""The server's own settings."""

from __future__ import annotations

import secrets

from dstack.store.database import Database


class Settings:
    """Text values by name."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, name: str) -> str | None:
        """Return the value, or None."""
        row = self.database.row("SELECT value FROM settings WHERE name = ?", name)
        return str(row["value"]) if row else None

    def set(self, name: str, value: str) -> None:
        """Set a value."""
        self.database.table("settings", pk="name").upsert({"name": name, "value": value})

    @property
    def server_id(self) -> str:
        """The id that keeps this server's files on a host apart from those of other servers. Created once."""
        server_id = self.get("server_id")
        if server_id is None:
            server_id = secrets.token_hex(4)
            self.set("server_id", server_id)
        return server_id
