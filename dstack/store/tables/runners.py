"""The server's runners, and the machines that registered themselves."""

from __future__ import annotations

from typing import Any

import msgspec

from dstack.errors import ConflictError, NotFoundError
from dstack.model.runner.registration import Registration
from dstack.model.runner.runner import Runner
from dstack.store.database import Database, encoded
from dstack.store.tables.events import EventLog, RecordedTable

DEFINITION = tuple(name for name in Runner.__struct_fields__ if name not in ("name", "hidden", "drained", "facts"))


class Runners(RecordedTable):
    """The runners by name, also kept in memory. `edition` is another number after each change."""

    def __init__(self, database: Database, events: EventLog) -> None:
        super().__init__(database, events)
        self.known: dict[str, Runner] = {}
        self.version: tuple[int, int] | None = None
        self.edition = 0

    def current(self) -> dict[str, Runner]:
        """Return all runners by name."""
        version = self.database.version
        if version != self.version:
            runners = self.database.records(Runner, "SELECT data FROM runners ORDER BY number")
            self.known, self.version = {runner.name: runner for runner in runners}, version
            self.edition += 1
        return self.known

    def add(self, runner: Runner) -> None:
        """Record a new runner. Raises ConflictError if its name is taken."""
        if self.get(runner.name):
            raise ConflictError(
                f"a runner named '{runner.name}' already exists",
                hint=f"choose another --name, or: dstack runners remove {runner.name}",
            )
        with self.database.transaction():
            self.database.table("runners").insert({"name": runner.name, "data": encoded(runner)})
            self.tell(None, runner)
            self.current()[runner.name] = runner
            self.edition += 1

    def get(self, name: str) -> Runner | None:
        """Return the runner with exactly this name, or None."""
        return self.current().get(name)

    def require(self, name: str) -> Runner:
        """Return the runner with exactly this name. Raises NotFoundError if there is none."""
        runner = self.get(name)
        if runner is None:
            raise NotFoundError(f"no runner '{name}'", hint="dstack runners")
        return runner

    def all(self) -> list[Runner]:
        """Return all runners, in the order in which they were added."""
        return list(self.current().values())

    def change(self, name: str, **changes: Any) -> Runner:
        """Set fields of a runner."""
        before = self.require(name)
        runner = msgspec.structs.replace(before, **changes)
        with self.database.transaction():
            self.database.execute("UPDATE runners SET data = ? WHERE name = ?", (encoded(runner), name))
            self.tell(before, runner)
            self.current()[name] = runner
            self.edition += 1
        return runner

    def rename(self, old: str, runner: Runner) -> None:
        """Give a runner another name and definition; it keeps its place among the runners. Raises ConflictError if the
        name is taken."""
        if self.get(runner.name):
            raise ConflictError(f"a runner named '{runner.name}' already exists", hint="choose another --name")
        self.require(old)
        with self.database.transaction():
            sql = "UPDATE runners SET name = ?, data = ? WHERE name = ?"
            self.database.execute(sql, (runner.name, encoded(runner), old))
            self.events.add("runner.renamed", runner=runner.name, data={"from": old})
            renamed = {runner.name if name == old else name: each for name, each in self.current().items()}
            self.known = {**renamed, runner.name: runner}
            self.edition += 1

    def remove(self, name: str) -> None:
        """Forget a runner and the objects and images recorded for it."""
        with self.database.transaction():
            self.database.table("runners").delete_where("name = ?", [name])
            for table in ("shipped", "pulled"):
                self.database.table(table).delete_where("runner = ?", [name])
            runner = self.current().pop(name, None)
            self.edition += 1
            if runner and not runner.hidden:
                self.events.add("runner.removed", runner=name)

    def tell(self, before: Runner | None, after: Runner) -> None:
        """Record the events of a change. What a probe finds is no event, nor is the hidden runner of `--local`."""
        if after.hidden:
            return
        if before is None or before.hidden:
            self.events.add("runner.added", runner=after.name, data={"address": str(after.address)})
            return
        if after.drained != before.drained:
            kind, data = ("runner.drained", {"reason": after.drained}) if after.drained else ("runner.resumed", {})
            self.events.add(kind, runner=after.name, data=data)
        changed = [name for name in DEFINITION if getattr(after, name) != getattr(before, name)]
        if changed:
            self.events.add("runner.changed", runner=after.name, data={"changed": changed})


class Registrations(RecordedTable):
    """The machines that registered themselves, by name, and the tokens for registering without approval. Tokens are
    stored as hashes; each is valid for one machine."""

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
