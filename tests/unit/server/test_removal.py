"""Whose new name a runner is, and what goes over to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dstack.engine.engine import Engine
from dstack.errors import ConflictError
from dstack.hosts.recording import Reply
from dstack.model.job.status import Status
from dstack.model.runner.runner import Address, Facts, Runner
from dstack.server.runners.removal import Removal
from dstack.store.tables.contents import Retained
from tests.unit.engine.lifecycle.machine import Machine, World

FACTS = Facts(machine="m", boot="b", engine="E", root="/home/ann/.dstack-host", user="ann")
OLD = Runner(
    name="box", address=Address(host="h", user="ann"), host_key="ssh-ed25519 K", facts=FACTS, source="/f", drained="x"
)


class Cleaned(Machine):
    """A machine that answers a removal like this."""

    def __init__(self) -> None:
        super().__init__()
        self.left: Reply = ""

    def reply(self, command: Any) -> Reply:
        removal = command.name in ("uninstalling from the machine", "revoking the server's key")
        return self.left if removal else super().reply(command)


@pytest.fixture
def machine() -> Cleaned:
    return Cleaned()


@pytest.fixture
def world(tmp_path: Path, machine: Cleaned) -> Iterator[World]:
    """A server whose runner `box` has a job."""
    world = World(tmp_path, machine)
    world.store.runners.change(
        "box", **{name: getattr(OLD, name) for name in ("host_key", "facts", "source", "drained")}
    )
    world.store.runners.change("box", address=OLD.address)
    yield world
    world.store.close()


NEW = replace(OLD, name="new", address=Address(host="elsewhere", user="ann"), drained=None)
OTHERS = {
    "another host key": replace(NEW, host_key="ssh-ed25519 L"),
    "another account": replace(NEW, address=Address(host="h", user="eve")),
    "another machine": replace(NEW, facts=replace(FACTS, machine="n")),
    "another folder": replace(NEW, root="/data"),
    "another Docker": replace(NEW, docker="podman"),
    "another inventory": replace(NEW, source="/g"),
    "no SSH": replace(NEW, address=Address(), host_key=None),
}


def test_a_new_name_for_the_same_account_is_a_rename(world: World) -> None:
    removal = Removal(Engine(world.context))

    assert removal.predecessor(NEW, ["gone", "box"]) == world.store.runners.require("box")
    assert removal.predecessor(NEW, []) is None


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_nothing_else_is_a_rename(world: World, other: Runner) -> None:
    """An account may claim to be another one, but not who logged in, nor the host key."""
    assert Removal(Engine(world.context)).predecessor(other, ["box"]) is None


def test_a_rename_keeps_jobs_artifacts_and_the_place_among_the_runners(world: World) -> None:
    store, removal = world.store, Removal(Engine(world.context))
    store.runners.add(replace(OLD, name="last"))
    store.retained_artifacts.add(Retained("j", "j", "box", "2026-01-01"))
    store.pulled_images.add("box", "i", "sha256:1")
    store.jobs.add(replace(world.job, id="ended", status=Status.DONE))
    store.jobs.add(replace(world.job, id="long-ago", status=Status.DONE, discarded=True))
    store.settings.set("unasked", "other box")

    asyncio.run(removal.rename(store.runners.require("box"), NEW))

    assert [runner.name for runner in store.runners.all()] == ["new", "last"]
    assert store.runners.require("new").drained == "x"
    assert {job: store.jobs.require(job).runner for job in ("abc", "ended", "long-ago")} == {
        "abc": "new",
        "ended": "new",
        "long-ago": "box",
    }
    assert [kept.job for kept in store.retained_artifacts.of("new")] == ["j"]
    assert store.pulled_images.of("new") == {"i": "sha256:1"}
    assert store.known_objects.of("new", "repo") == ["tree"]
    assert store.settings.get("unasked") == "other new"
    with pytest.raises(ConflictError):
        store.runners.rename("last", NEW)


def test_who_uses_the_same_folder_takes_over_what_is_left(world: World, machine: Cleaned) -> None:
    store, removal = world.store, Removal(Engine(world.context))
    with pytest.raises(ConflictError, match="box still runs job of run"):
        asyncio.run(removal.remove("box"))
    store.jobs.change("abc", status=Status.RUNNING)
    store.jobs.change("abc", status=Status.FAILED)
    store.runners.add(replace(OLD, name="twin"))

    removed = asyncio.run(removal.remove("box"))

    assert removed.used_by == ["twin"]
    assert [command.name for command in machine.host.commands if "uninstalling" in command.name] == []
    assert [job.id for job in store.jobs.to_discard("twin")] == ["abc"]


@pytest.mark.parametrize(
    ("other", "shared", "images"),
    [
        (None, False, True),
        ({"machine": "n"}, False, True),
        ({"boot": "c", "booted": 1, "clock": 9}, False, True),
        ({"user": "bob", "root": "/home/bob/x"}, True, False),
        ({"user": "bob", "root": "/home/bob/x", "engine": "F"}, True, True),
        ({"user": "bob", "root": "/home/bob/x", "engine": ""}, True, False),
    ],
)
def test_what_others_on_the_machine_use_stays(
    world: World, machine: Cleaned, other: dict[str, Any] | None, shared: bool, images: bool
) -> None:
    store, removal = world.store, Removal(Engine(world.context))
    box = store.runners.change("box", facts=replace(FACTS, booted=2, clock=8))
    if other is not None:
        store.runners.add(replace(box, name="other", facts=replace(box.facts or FACTS, **other)))

    asyncio.run(removal.leave(box, list(asyncio.run(others(removal, box)))))

    (script,) = [command.script for command in machine.host.commands if "uninstalling" in command.name]
    assert ("println .Source" in script, "images -aq" in script) == (shared, images)


async def others(removal: Removal, runner: Runner) -> list[Runner]:
    removal.fleet.check_all = unchecked  # type: ignore[method-assign, assignment]
    return list(await removal.others(runner))


async def unchecked(names: object) -> None:
    """No machine answers."""
