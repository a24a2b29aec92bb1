"""The machines that registered themselves, and the tokens for registering without approval."""

from __future__ import annotations

from typing import Any

import msgspec

from dstack.errors import NotFoundError
from dstack.model.runner.registration import Registration
from dstack.store.database import encoded
from dstack.store.tables.events import RecordedTable


class Registrations(RecordedTable):
    """Registrations by name. Tokens are stored as hashes; each is valid for one machine."""

    def put(self, registration: Registration) -> None:
        """Record a registration. Replaces one with the same name."""
        self.database.table("registrations").upsert({"name": registration.name, "data": encoded(registration)})

    def get(self, name: str) -> Registration | None:
        """Return the registration with exactly this name, or None."""
        return self.database.record(Registration, "SELECT data FROM registrations WHERE name = ?", name)

    def require(self, name: str) -> Registration:
        """Return the registration with exactly this name. Raises NotFoundError if there is none."""
        registration = self.get(name)
        if registration is None:
            raise NotFoundError(f"no machine has registered as '{name}'", hint="dstack runners approve")
        return registration

    def all(self) -> list[Registration]:
        """Return all registrations, sorted by name."""
        return self.database.records(Registration, "SELECT data FROM registrations ORDER BY name")

    def change(self, name: str, **changes: Any) -> Registration:
        """Set fields of a registration."""
        before = self.require(name)
        changed = msgspec.structs.replace(before, **changes)
        with self.database.transaction():
            self.put(changed)
            if changed.approved and not before.approved:
                self.events.add("runner.approved", runner=name)
        return changed

    def remove(self, name: str) -> None:
        """Forget a registration."""
        self.database.table("registrations").delete_where("name = ?", [name])

    def add_token(self, hashed: str) -> None:
        """Record the hash of a token that lets one machine register."""
        self.database.table("registration_tokens").insert({"hash": hashed})

    def take_token(self, hashed: str) -> bool:
        """Use up the token with this hash. Return whether it was valid."""
        return self.database.execute("DELETE FROM registration_tokens WHERE hash = ?", [hashed]).rowcount == 1
