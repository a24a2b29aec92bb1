"""The images that dstack itself pulled to each runner. It never removes others."""

from __future__ import annotations

from dstack.store.database import Database


class PulledImages:
    """The images by runner and name, with the digest that dstack pulled. It differs if someone else pulled since."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, runner: str, image: str, digest: str) -> None:
        """Record an image that dstack pulled to a runner."""
        self.database.execute("INSERT OR REPLACE INTO pulled VALUES (?, ?, ?)", runner, image, digest)

    def of(self, runner: str) -> dict[str, str]:
        """Return the digests of a runner's images by name."""
        rows = self.database.rows("SELECT image, digest FROM pulled WHERE runner = ? ORDER BY image", runner)
        return {row["image"]: row["digest"] for row in rows}

    def forget(self, runner: str, image: str) -> None:
        """Forget an image: it was removed, or someone else pulled it since."""
        self.database.execute("DELETE FROM pulled WHERE runner = ? AND image = ?", runner, image)
