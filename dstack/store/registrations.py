"""Machines that offered themselves, and the tokens that let new ones in."""

from __future__ import annotations

from typing import Any

import msgspec

from dstack.errors import NotFoundError
from dstack.model.registration import Registration
from dstack.store.database import Database


class Registrations:
    """By name. A token is stored hashed, and good for one machine."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def put(self, registration: Registration) -> None:
        """Record it, in place of one of its name."""
        data = msgspec.json.encode(registration).decode()
        self.database.execute(
            "INSERT OR REPLACE INTO registrations (name, data) VALUES (?, ?)", registration.name, data
        )

    def get(self, name: str) -> Registration | None:
        """The registration of exactly that name."""
        row = self.database.row("SELECT data FROM registrations WHERE name = ?", name)
        return msgspec.json.decode(row["data"], type=Registration) if row else None

    def require(self, name: str) -> Registration:
        """The registration of exactly that name, or NotFoundError."""
        found = self.get(name)
        if found is None:
            raise NotFoundError(f"no machine has registered as '{name}'", hint="dstack runners approve")
        return found

    def all(self) -> list[Registration]:
        """All of them, by name."""
        rows = self.database.rows("SELECT data FROM registrations ORDER BY name")
        return [msgspec.json.decode(row["data"], type=Registration) for row in rows]

    def change(self, name: str, **changes: Any) -> Registration:
        """Set fields."""
        changed = msgspec.structs.replace(self.require(name), **changes)
        self.put(changed)
        return changed

    def remove(self, name: str) -> None:
        """Forget it."""
        self.database.execute("DELETE FROM registrations WHERE name = ?", name)

    def add_token(self, hashed: str) -> None:
        """Let one machine register with the token of this hash."""
        self.database.execute("INSERT INTO registration_tokens (hash) VALUES (?)", hashed)

    def take_token(self, hashed: str) -> bool:
        """Whether the token was good; it is used up then."""
        return self.database.execute("DELETE FROM registration_tokens WHERE hash = ?", hashed) == 1
