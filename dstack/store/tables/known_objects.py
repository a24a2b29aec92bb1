"""The git objects that each runner is known to have, so that they need not be sent again."""

from __future__ import annotations

from collections.abc import Iterable

from dstack.store.database import Database


class KnownObjects:
    """May be outdated: a runner that lost objects says so, and is sent everything."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.known: dict[str, dict[str, list[str]]] = {}
        self.version: tuple[int, int] | None = None

    def add(self, runner: str, repo: str, objects: Iterable[str]) -> None:
        """Record objects that the runner has."""
        self.known.pop(repo, None)
        with self.database.transaction():
            rows = [(runner, repo, name) for name in objects]
            self.database.conn.executemany("INSERT OR IGNORE INTO shipped VALUES (?, ?, ?)", rows)

    def of(self, runner: str, repo: str) -> list[str]:
        """Return the objects of a repository that the runner is known to have."""
        rows = self.database.rows("SELECT object FROM shipped WHERE runner = ? AND repo = ?", runner, repo)
        return [row["object"] for row in rows]

    def holders(self, repo: str) -> dict[str, list[str]]:
        """Return the runners known to have each object of a repository. Some may have been removed since."""
        if self.database.version != self.version:
            self.known, self.version = {}, self.database.version
        if repo not in self.known:
            found = self.known[repo] = {}
            for row in self.database.rows("SELECT runner, object FROM shipped WHERE repo = ?", repo):
                found.setdefault(row["object"], []).append(row["runner"])
        return self.known[repo]

    def forget(self, runner: str, repo: str) -> None:
        """Forget the repository's objects on the runner: they are missing or damaged."""
        self.known.pop(repo, None)
        self.database.table("shipped").delete_where("runner = ? AND repo = ?", [runner, repo])

    def places(self) -> list[tuple[str, str]]:
        """Return each pair of runner and repository that it has objects of."""
        rows = self.database.rows("SELECT DISTINCT runner, repo FROM shipped ORDER BY runner, repo")
        return [(row["runner"], row["repo"]) for row in rows]
