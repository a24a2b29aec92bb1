"""The components of every cache key, to explain why a later job has a different key."""

from __future__ import annotations

import msgspec

from dstack.store.database import Database


class CacheKeys:
    """The components by key, stored once for all jobs with that key."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, key: str, components: dict[str, str]) -> None:
        """Record the components of a key."""
        data = msgspec.json.encode(components).decode()
        self.database.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (key, data))

    def components(self, key: str) -> dict[str, str]:
        """Return the components of a key; empty if the key is unknown."""
        row = self.database.row("SELECT components FROM keys WHERE key = ?", key)
        return msgspec.json.decode(row["components"], type=dict[str, str]) if row else {}
