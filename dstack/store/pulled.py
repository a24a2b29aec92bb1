"""Which images dstack itself pulled to which runner: no other one is ever removed there."""

from __future__ import annotations

from dstack.store.database import Database


class Pulled:
    """By runner and name, with the digest that the image had then: one that somebody pulled anew has another."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, runner: str, image: str, digest: str) -> None:
        """The image was not on the runner, and now is."""
        self.database.execute("INSERT OR REPLACE INTO pulled VALUES (?, ?, ?)", runner, image, digest)

    def of(self, runner: str) -> dict[str, str]:
        """The digests by name."""
        rows = self.database.rows("SELECT image, digest FROM pulled WHERE runner = ? ORDER BY image", runner)
        return {row["image"]: row["digest"] for row in rows}

    def forget(self, runner: str, image: str) -> None:
        """It is gone, or is somebody else's now."""
        self.database.execute("DELETE FROM pulled WHERE runner = ? AND image = ?", runner, image)
