"""Which object of a bucket holds which content: what lets equal content be copied there instead of uploaded."""

from __future__ import annotations

from collections.abc import Iterable

from dstack.model.upload import Stored
from dstack.store.database import Database


class Contents:
    """A belief, not a promise: an object is looked at before it is copied, and forgotten if it is not what it was."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, storage: str, objects: Iterable[tuple[str, Stored]]) -> None:
        """Objects with their sha256 first."""
        with self.database.transaction():
            for sha256, stored in objects:
                values = (storage, stored.key, sha256, stored.size, stored.etag)
                self.database.execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?)", *values)

    def find(self, storage: str, sha256: str, size: int) -> list[Stored]:
        """The objects with this content."""
        rows = self.database.rows(
            "SELECT key, size, etag FROM contents WHERE storage = ? AND sha256 = ? AND size = ? LIMIT 20",
            storage,
            sha256,
            size,
        )
        return [Stored(row["key"], row["size"], row["etag"]) for row in rows]

    def forget_below(self, storage: str, prefix: str) -> None:
        """All objects whose key begins so are gone."""
        self.database.execute(
            "DELETE FROM contents WHERE storage = ? AND substr(key, 1, ?) = ?", storage, len(prefix), prefix
        )

    def forget(self, storage: str, keys: Iterable[str]) -> None:
        """These objects are gone, or are others now."""
        with self.database.transaction():
            for key in keys:
                self.database.execute("DELETE FROM contents WHERE storage = ? AND key = ?", storage, key)
