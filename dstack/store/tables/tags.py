"""Tags: names for results."""

from __future__ import annotations

from dstack.model.api.artifacts import TagView
from dstack.store.database import encoded
from dstack.store.tables.events import RecordedTable


class Tags(RecordedTable):
    """The tags. Each names one job, whose run can't be removed."""

    def set(self, tag: TagView) -> None:
        """Set a tag. Replaces one with the same name."""
        with self.database.transaction():
            self.database.table("tags").upsert({"name": tag.name, "data": encoded(tag)})
            self.events.add("tag.set", run=tag.run, job=tag.job, data={"name": tag.name})

    def get(self, name: str) -> TagView | None:
        """Return the tag with exactly this name, or None."""
        return self.database.record(TagView, "SELECT data FROM tags WHERE name = ?", name)

    def all(self) -> list[TagView]:
        """Return all tags, sorted by name."""
        return self.database.records(TagView, "SELECT data FROM tags ORDER BY name")

    def delete(self, name: str) -> bool:
        """Delete a tag. Return whether it existed."""
        tag = self.get(name)
        if tag is None:
            return False
        with self.database.transaction():
            self.database.table("tags").delete_where("name = ?", [name])
            self.events.add("tag.deleted", run=tag.run, job=tag.job, data={"name": name})
        return True
