"""Settings, and secrets, which are encrypted at rest with a key next to the database: a copy of the database alone does
not reveal them. Only this module imports cryptography, when it needs it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dstack.errors import DstackError, NotFoundError
from dstack.model.job.reasons import ReasonCode
from dstack.plumbing import disk
from dstack.store.database import Database
from dstack.store.tables.events import EventLog, RecordedTable

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

SERVER_ID = "server_id"
OWN = frozenset({SERVER_ID, "epoch", "home", "restored_jobs", "unasked", "notify_event"})
"""Settings that nobody sets, and no event tells."""


class Settings(RecordedTable):
    """The server's own settings: text values by name."""

    def get(self, name: str) -> str | None:
        """Return the value, or None."""
        value: str | None = self.database.value("SELECT value FROM settings WHERE name = ?", name)
        return value

    def set(self, name: str, value: str) -> None:
        """Set a value."""
        with self.database.transaction():
            known = (self.get(name) or "") == value
            self.database.table("settings", pk="name").upsert({"name": name, "value": value})
            if not known and name not in OWN:
                self.events.add("config.changed", data={"name": name, "value": value})

    @property
    def server_id(self) -> str:
        """The id that keeps this server's files on a host apart from those of other servers."""
        return self.get(SERVER_ID) or ""


class Secrets(RecordedTable):
    """Values by name, and the values that each job was given, which stay masked in its log even if they change."""

    def __init__(self, database: Database, events: EventLog, key: Path) -> None:
        super().__init__(database, events)
        self.key = key

    def set(self, name: str, value: str, now: str) -> None:
        """Record a value. Replaces an earlier one."""
        with self.database.transaction():
            self.database.table("secrets").upsert({"name": name, "value": self.sealed(value), "set_at": now})
            self.events.add("secret.set", data={"name": name})

    def names(self) -> dict[str, str]:
        """Return the names, each with the time when it was set."""
        return {row["name"]: row["set_at"] for row in self.database.table("secrets").rows_where(order_by="name")}

    def require(self, name: str) -> str:
        """Return the value. Raises NotFoundError if it is not set."""
        value = self.database.value("SELECT value FROM secrets WHERE name = ?", name)
        if value is None:
            hint = f"dstack secrets set {name}"
            raise NotFoundError(f"no secret '{name}'", hint=hint, code=ReasonCode.SECRET_MISSING)
        return self.opened(value)

    def delete(self, name: str) -> None:
        """Forget a value. Raises NotFoundError if it is not set."""
        with self.database.transaction():
            if not self.database.execute("DELETE FROM secrets WHERE name = ?", [name]).rowcount:
                raise NotFoundError(f"no secret '{name}'", hint="dstack secrets list")
            self.events.add("secret.deleted", data={"name": name})

    def give(self, job: str, values: list[str]) -> None:
        """Record the values for a job before it gets them."""
        known = set(self.given(job))
        fresh = ({"job": job, "value": self.sealed(value)} for value in values if value not in known)
        with self.database.transaction():
            self.database.table("given").insert_all(fresh)

    def given(self, job: str) -> list[str]:
        """Return the values that a job was given."""
        return [self.opened(value) for value in self.database.column("SELECT value FROM given WHERE job = ?", job)]

    def forget(self, job: str) -> None:
        """Forget what a job was given, once its log is removed."""
        self.database.table("given").delete_where("job = ?", [job])

    def sealed(self, value: str) -> str:
        """Return a value, encrypted."""
        return self._cipher.encrypt(value.encode("utf-8", "surrogateescape")).decode()

    def opened(self, text: str) -> str:
        """Return an encrypted value. Raises DstackError without the right key."""
        from cryptography.fernet import InvalidToken

        try:
            return self._cipher.decrypt(text.encode()).decode("utf-8", "surrogateescape")
        except InvalidToken as wrong:
            raise DstackError(
                f"can't decrypt the secrets: {self.key} is not the key they were encrypted with",
                hint="restore the original key, or set each secret again: dstack secrets set NAME",
            ) from wrong

    @cached_property
    def _cipher(self) -> Fernet:
        """The cipher. Its key is created with the first secret."""
        from cryptography.fernet import Fernet

        if not self.key.exists():
            disk.write(self.key, Fernet.generate_key())
        return Fernet(self.key.read_bytes())
