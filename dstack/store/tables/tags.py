"""Tags: names for results."""

from __future__ import annotations

import msgspec

from dstack.model.api.artifacts import TagView
from dstack.store.database import Database
from dstack.store.tables.events import EventLog


class Tags:
    """The tags. Each names one job, whose run can't be removed."""

    def __init__(self, database: Database, events: EventLog) -> None:
        self.database = database
        self.events = events

    def set(self, tag: TagView) -> None:
        """Set a tag. Replaces one with the same name."""
        with self.database.transaction():
            self.database.table("tags").upsert({"name": tag.name, "data": msgspec.json.encode(tag).decode()})
            self.events.add("tag.set", run=tag.run, job=tag.job, data={"name": tag.name})

    def get(self, name: str) -> TagView | None:
        """Return the tag with exactly this name, or None."""
        row = self.database.row("SELECT data FROM tags WHERE name = ?", name)
        return msgspec.json.decode(row["data"], type=TagView) if row else None

    def all(self) -> list[TagView]:
        """Return all tags, sorted by name."""
        rows = self.database.table("tags").rows_where(order_by="name")
        return [msgspec.json.decode(row["data"], type=TagView) for row in rows]

    def delete(self, name: str) -> bool:
        """Delete a tag. Return whether it existed."""
        tag = self.get(name)
        if tag is None:
            return False
        with self.database.transaction():
            self.database.table("tags").delete_where("name = ?", [name])
            self.events.add("tag.deleted", run=tag.run, job=tag.job, data={"name": name})
        return True
