"""When a probe uses the open connection, and when it logs in anew."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from dstack.model.runner.runner import Facts, Finding
from tests.unit.engine.lifecycle.machine import Machine, World

BLOCKED = Finding("docker-permission", "ann is not allowed to use Docker", "why", "fix", blocking=True)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, Machine())
    yield world
    world.store.close()


def test_a_block_is_lifted_only_by_a_new_login(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, found = world.context.fleet, {"open": (), "new": (BLOCKED,)}
    logins: list[str] = []
    closed: list[str] = []

    async def asked_on(host: object, runner: object, *, thorough: bool) -> tuple[Facts, float]:
        how = "open" if host is world.machine.host else "new"
        logins.append(how)
        return replace(Facts(machine="m"), findings=found[how]), 0.0

    async def close(name: str) -> None:
        closed.append(name)

    class Anew:
        async def close(self) -> None:
            """It is closed after each use."""

    monkeypatch.setattr(fleet, "asked_on", asked_on)
    monkeypatch.setattr(fleet.pool, "anew", lambda runner: Anew())
    monkeypatch.setattr(fleet.pool, "close", close)

    def state(*, thorough: bool = False) -> str:
        return asyncio.run(fleet.check("box", thorough=thorough)).state

    assert [state(), state(thorough=True), state()] == ["ready", "unusable", "unusable"]
    assert closed == []
    found["new"] = ()
    assert [state(), state()] == ["ready", "ready"]

    assert logins == ["open", "new", "new", "new", "open"]
    assert closed == ["box"], "the open connection still has the groups of its login"
