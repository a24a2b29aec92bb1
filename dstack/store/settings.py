"""What the server remembers about itself."""

from __future__ import annotations

import secrets

from dstack.store.database import Database


class Settings:
    """Names and values of text."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, name: str) -> str | None:
        """The value, or None."""
        row = self.database.row("SELECT value FROM settings WHERE name = ?", name)
        return str(row["value"]) if row else None

    def set(self, name: str, value: str) -> None:
        """Set a value."""
        with self.database.transaction():
            self.database.execute("DELETE FROM settings WHERE name = ?", name)
            self.database.execute("INSERT INTO settings (name, value) VALUES (?, ?)", name, value)

    @property
    def server_id(self) -> str:
        """What tells this server's things on a host from those of others. Made once."""
        found = self.get("server_id")
        if found is None:
            found = secrets.token_hex(4)
            self.set("server_id", found)
        return found
