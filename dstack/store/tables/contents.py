"""What runners and buckets hold, so that it need not be sent, pulled or uploaded again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from dstack.model.job.pieces import Stored
from dstack.store.database import Database, Table


class KnownObjects(Table):
    """The git objects that each runner is known to have. May be outdated: a runner that lost objects says so, and is
    sent everything."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
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
        return self.database.column("SELECT object FROM shipped WHERE runner = ? AND repo = ?", runner, repo)

    def holders(self, repo: str) -> dict[str, list[str]]:
        """Return the runners known to have each object of a repository. Some may have been removed since."""
        if self.database.version != self.version:
            self.known, self.version = {}, self.database.version
        if repo not in self.known:
            found = self.known[repo] = {}
            for runner, name in self.database.rows("SELECT runner, object FROM shipped WHERE repo = ?", repo):
                found.setdefault(name, []).append(runner)
        return self.known[repo]

    def forget(self, runner: str, repo: str) -> None:
        """Forget the repository's objects on the runner: they are missing or damaged."""
        self.known.pop(repo, None)
        self.database.table("shipped").delete_where("runner = ? AND repo = ?", [runner, repo])

    def hand_over(self, old: str, new: str) -> None:
        """Record one runner's objects for another one, which has the same folder."""
        self.known = {}
        self.database.execute("UPDATE OR IGNORE shipped SET runner = ? WHERE runner = ?", (new, old))

    def places(self) -> list[tuple[str, str]]:
        """Return each pair of runner and repository that it has objects of."""
        rows = self.database.rows("SELECT DISTINCT runner, repo FROM shipped ORDER BY runner, repo")
        return [(row["runner"], row["repo"]) for row in rows]


class PulledImages(Table):
    """The images that dstack itself pulled to each runner: it never removes others. The digest is the one it pulled,
    and differs if someone else pulled since."""

    def add(self, runner: str, image: str, digest: str) -> None:
        """Record an image that dstack pulled to a runner."""
        self.database.table("pulled").upsert({"runner": runner, "image": image, "digest": digest})

    def of(self, runner: str) -> dict[str, str]:
        """Return the digests of a runner's images by name."""
        rows = self.database.table("pulled").rows_where("runner = ?", [runner], order_by="image")
        return {row["image"]: row["digest"] for row in rows}

    def hand_over(self, old: str, new: str) -> None:
        """Record one runner's images for another one, which has the same Docker."""
        self.database.execute("UPDATE OR IGNORE pulled SET runner = ? WHERE runner = ?", (new, old))

    def forget(self, runner: str, image: str) -> None:
        """Forget an image: it was removed, or someone else pulled it since."""
        self.database.table("pulled").delete_where("runner = ? AND image = ?", [runner, image])


@dataclass(frozen=True)
class Retained:
    """The artifacts of an attempt, retained on a runner since a time (RFC 3339)."""

    job: str
    attempt: str
    runner: str
    since: str


class RetainedArtifacts(Table):
    """May be outdated: the runner is asked before they are used, and what it no longer has is forgotten."""

    def add(self, kept: Retained) -> None:
        """Record retained artifacts."""
        self.database.table("kept").upsert(asdict(kept))

    def get(self, job: str) -> Retained | None:
        """Return the retained artifacts of a job, or None."""
        rows = self.database.rows("SELECT * FROM kept WHERE job = ?", job)
        return Retained(**rows[0]) if rows else None

    def of(self, runner: str) -> list[Retained]:
        """Return the retained artifacts on a runner, oldest first."""
        rows = self.database.table("kept").rows_where("runner = ?", [runner], order_by="since")
        return [Retained(**row) for row in rows]

    def hand_over(self, old: str, new: str) -> None:
        """Record one runner's artifacts for another one, which has the same folder."""
        self.database.execute("UPDATE kept SET runner = ? WHERE runner = ?", (new, old))

    def overdue(self, runner: str, before: str, most: int) -> list[str]:
        """Return up to 100 attempts whose artifacts the runner can remove, oldest first: they are from before a time
        (RFC 3339), are not among the newest `most`, or belong to a deleted run."""
        return self.database.column(
            "SELECT attempt FROM kept LEFT JOIN jobs ON jobs.id = kept.job WHERE kept.runner = ?1 AND"
            " (since < ?2 OR jobs.id IS NULL OR jobs.run IN (SELECT name FROM hidden_runs)"
            " OR since < (SELECT since FROM kept WHERE runner = ?1 ORDER BY since DESC LIMIT 1 OFFSET ?3))"
            " ORDER BY since LIMIT 100",
            runner,
            before,
            most - 1,
        )

    def remove(self, attempts: Iterable[str]) -> None:
        """Forget the artifacts of these attempts: they were removed."""
        with self.database.transaction():
            for attempt in attempts:
                self.database.table("kept").delete_where("attempt = ?", [attempt])


class BucketContents(Table):
    """Which object in a bucket has which content, so that equal content is copied there instead of uploaded. May be
    outdated: an object is checked before it is copied, and forgotten if it has changed."""

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
