"""Which object in a bucket has which content, so that equal content is copied there instead of uploaded."""

from __future__ import annotations

from collections.abc import Iterable

from dstack.model.job.pieces import Stored
from dstack.store.database import Table


class BucketContents(Table):
    """May be outdated: an object is checked before it is copied, and forgotten if it has changed."""

    def add(self, storage: str, objects: Iterable[tuple[str, Stored]]) -> None:
        """Record objects, given as pairs of sha256 and object."""
        with self.database.transaction():
            self.database.table("contents").upsert_all(
                {"storage": storage, "key": stored.key, "sha256": sha256, "size": stored.size, "etag": stored.etag}
                for sha256, stored in objects
            )

    def find(self, storage: str, sha256: str, size: int) -> list[Stored]:
        """Return objects with this content."""
        sql = "SELECT key, size, etag FROM contents WHERE storage = ? AND sha256 = ? AND size = ? LIMIT 20"
        return [Stored(**row) for row in self.database.rows(sql, storage, sha256, size)]

    def forget_below(self, storage: str, prefix: str) -> None:
        """Forget all objects whose key starts with `prefix`."""
        below = [storage, len(prefix), prefix]
        self.database.table("contents").delete_where("storage = ? AND substr(key, 1, ?) = ?", below)

    def forget(self, storage: str, keys: Iterable[str]) -> None:
        """Forget these objects: they were removed or have changed."""
        with self.database.transaction():
            rows = [(storage, key) for key in keys]
            self.database.conn.executemany("DELETE FROM contents WHERE storage = ? AND key = ?", rows)
