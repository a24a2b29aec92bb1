"""The images that dstack itself pulled to each runner. It never removes others."""

from __future__ import annotations

from dstack.store.database import Database


class PulledImages:
    """The images by runner and name, with the digest that dstack pulled. It differs if someone else pulled since."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, runner: str, image: str, digest: str) -> None:
        """Record an image that dstack pulled to a runner."""
        self.database.table("pulled").upsert({"runner": runner, "image": image, "digest": digest})

    def of(self, runner: str) -> dict[str, str]:
        """Return the digests of a runner's images by name."""
        rows = self.database.table("pulled").rows_where("runner = ?", [runner], order_by="image")
        return {row["image"]: row["digest"] for row in rows}

    def forget(self, runner: str, image: str) -> None:
        """Forget an image: it was removed, or someone else pulled it since."""
        self.database.table("pulled").delete_where("runner = ? AND image = ?", [runner, image])
