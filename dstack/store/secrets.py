"""Secrets, encrypted at rest with a key that lies beside the database: a copy of the database alone tells nothing.

cryptography is imported here only, and when it is needed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.errors import DstackError, NotFoundError
from dstack.store.database import Database

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class Secrets:
    """Values by name, and which of them each job was given: its log is masked by those, whatever they are now."""

    def __init__(self, database: Database, key: Path) -> None:
        self.database = database
        self.key = key
        self._box: Fernet | None = None

    def set(self, name: str, value: str, now: str) -> None:
        """Record a value, in place of the one before."""
        sql = "INSERT INTO secrets (name, value, set_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET value ="
        self.database.execute(f"{sql} excluded.value, set_at = excluded.set_at", name, self._sealed(value), now)

    def names(self) -> dict[str, str]:
        """The names, and when each was set."""
        return {row["name"]: row["set_at"] for row in self.database.rows("SELECT * FROM secrets ORDER BY name")}

    def require(self, name: str) -> str:
        """The value, or NotFoundError."""
        row = self.database.row("SELECT value FROM secrets WHERE name = ?", name)
        if row is None:
            raise NotFoundError(f"no secret '{name}'", hint=f"dstack secrets set {name}")
        return self._opened(row["value"])

    def delete(self, name: str) -> None:
        """Forget a value, or raise NotFoundError."""
        if not self.database.execute("DELETE FROM secrets WHERE name = ?", name):
            raise NotFoundError(f"no secret '{name}'", hint="dstack secrets list")

    def give(self, job: str, values: list[str]) -> None:
        """Remember what a job gets, before it does."""
        known = set(self.given(job))
        with self.database.transaction():
            for value in values:
                if value not in known:
                    self.database.execute("INSERT INTO given (job, value) VALUES (?, ?)", job, self._sealed(value))

    def given(self, job: str) -> list[str]:
        """What a job was given."""
        rows = self.database.rows("SELECT value FROM given WHERE job = ?", job)
        return [self._opened(row["value"]) for row in rows]

    def forget(self, job: str) -> None:
        """The job and its log are gone: forget what it was given."""
        self.database.execute("DELETE FROM given WHERE job = ?", job)

    def _sealed(self, value: str) -> str:
        return self._fernet().encrypt(value.encode("utf-8", "surrogateescape")).decode()

    def _opened(self, text: str) -> str:
        from cryptography.fernet import InvalidToken

        try:
            return self._fernet().decrypt(text.encode()).decode("utf-8", "surrogateescape")
        except InvalidToken as wrong:
            raise DstackError(
                f"{self.key} is not the key with which the secrets were encrypted, so that they can't be read",
                hint="put the key of this database back, or set the secrets again: dstack secrets set NAME",
            ) from wrong

    def _fernet(self) -> Fernet:
        """The box that the key opens. The key is made with the first secret."""
        from cryptography.fernet import Fernet

        if self._box is None:
            if not self.key.exists():
                aside = self.key.with_suffix(".new")
                aside.unlink(missing_ok=True)
                with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(Fernet.generate_key())
                    file.flush()
                    os.fsync(file.fileno())
                aside.rename(self.key)
            self._box = Fernet(self.key.read_bytes())
        return self._box
