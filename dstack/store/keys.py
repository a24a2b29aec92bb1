"""What every cache key was made of: it tells why a later job has another one."""

from __future__ import annotations

import msgspec

from dstack.store.database import Database


class Keys:
    """Components by key, once for all jobs of that key."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, key: str, components: dict[str, str]) -> None:
        """Remember what the key is made of."""
        data = msgspec.json.encode(components).decode()
        self.database.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", key, data)

    def components(self, key: str) -> dict[str, str]:
        """What the key was made of; nothing for one that is not known."""
        row = self.database.row("SELECT components FROM keys WHERE key = ?", key)
        return msgspec.json.decode(row["components"], type=dict[str, str]) if row else {}
