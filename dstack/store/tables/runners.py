"""The server's runners."""

from __future__ import annotations

from typing import Any

import msgspec

from dstack.errors import ConflictError, NotFoundError
from dstack.model.runner.runner import Runner
from dstack.store.database import Database


class Runners:
    """The runners by name, also kept in memory."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.known: dict[str, Runner] = {}
        self.version: tuple[int, int] | None = None

    def current(self) -> dict[str, Runner]:
        """Return all runners by name."""
        version = self.database.version
        if version != self.version:
            rows = self.database.rows("SELECT data FROM runners ORDER BY number")
            runners = [msgspec.json.decode(row["data"], type=Runner) for row in rows]
            self.known, self.version = {runner.name: runner for runner in runners}, version
        return self.known

    def add(self, runner: Runner) -> None:
        """Record a new runner. Raises ConflictError if its name is taken."""
        if self.get(runner.name):
            raise ConflictError(
                f"a runner named '{runner.name}' already exists",
                hint=f"choose another --name, or: dstack runners remove {runner.name}",
            )
        data = msgspec.json.encode(runner).decode()
        self.database.table("runners").insert({"name": runner.name, "data": data})
        self.current()[runner.name] = runner

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
        runner = msgspec.structs.replace(self.require(name), **changes)
        data = msgspec.json.encode(runner).decode()
        self.database.execute("UPDATE runners SET data = ? WHERE name = ?", (data, name))
        self.current()[name] = runner
        return runner

    def remove(self, name: str) -> None:
        """Forget a runner and the objects and images recorded for it."""
        with self.database.transaction():
            self.database.table("runners").delete_where("name = ?", [name])
            for table in ("shipped", "pulled"):
                self.database.table(table).delete_where("runner = ?", [name])
            self.current().pop(name, None)
