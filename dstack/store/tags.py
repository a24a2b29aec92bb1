"""Names that people give to results."""

from __future__ import annotations

import msgspec

from dstack.model.api.artifacts import TagView
from dstack.store.database import Database


class Tags:
    """Each names one job. A tagged run stays when others go."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def set(self, tag: TagView) -> None:
        """Give a name, or give it anew."""
        with self.database.transaction():
            self.delete(tag.name)
            data = msgspec.json.encode(tag).decode()
            self.database.execute("INSERT INTO tags (name, data) VALUES (?, ?)", tag.name, data)

    def get(self, name: str) -> TagView | None:
        """The tag of exactly that name."""
        row = self.database.row("SELECT data FROM tags WHERE name = ?", name)
        return msgspec.json.decode(row["data"], type=TagView) if row else None

    def all(self) -> list[TagView]:
        """All of them, by name."""
        rows = self.database.rows("SELECT data FROM tags ORDER BY name")
        return [msgspec.json.decode(row["data"], type=TagView) for row in rows]

    def delete(self, name: str) -> bool:
        """Take a name away; whether there was one."""
        return self.database.execute("DELETE FROM tags WHERE name = ?", name) > 0
