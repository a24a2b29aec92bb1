"""What somebody without a token learns about machines that registered, and who still needs the server's key there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dstack.model.runner.runner import Address, Facts, Runner
from tests.unit.server.world import World

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk1K1uZ8pV9mE2Ih6d1lQe7v0s8oYvJ0cQF5n0dJ9aX"
MACHINE = {"name": "desk", "user": "ann", "address": "127.0.0.1", "port": 1, "host_keys": [KEY]}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.store.close()


def registered(world: World, **changes: Any) -> str:
    status, answer = world.call("POST", "/registrations", {**MACHINE, **changes})
    assert status == 200, answer
    return str(answer["secret"])


def test_without_a_secret_nobody_learns_which_names_exist(world: World) -> None:
    registered(world)

    known = world.call("POST", "/registrations/desk/heartbeat", {"secret": "guessed"}, token=None)
    unknown = world.call("POST", "/registrations/none/heartbeat", {"secret": "guessed"}, token=None)

    assert known[0] == unknown[0] == 401
    assert known[1] == {**unknown[1], "message": unknown[1]["message"].replace("none", "desk")}


def test_without_a_valid_token_nobody_learns_where_machines_are(world: World) -> None:
    registered(world)
    elsewhere = {**MACHINE, "port": 2}

    known = world.call("POST", "/registrations", elsewhere, token="guessed")
    unknown = world.call("POST", "/registrations", {**elsewhere, "name": "none"}, token="guessed")

    assert known == unknown
    assert known[0] == 401


def test_a_refused_registration_leaves_its_token_valid(world: World) -> None:
    world.store.runners.add(Runner(name="desk", address=Address(host="h")))
    once = str(world.call("POST", "/registration-tokens")[1]["token"])

    assert world.call("POST", "/registrations", MACHINE, token=once)[0] == 409
    assert world.call("POST", "/registrations", {**MACHINE, "name": "table"}, token=once)[0] == 200
    assert world.call("POST", "/registrations", {**MACHINE, "name": "chair"}, token=once)[0] == 401


OTHERS = {
    "the same account": (Runner(name="o", address=Address(host="h"), host_key=KEY, authorized=True), "ann", ["o"]),
    "another account": (Runner(name="o", address=Address(host="h"), host_key=KEY, authorized=True), "bob", []),
    "a key of the user's": (Runner(name="o", address=Address(host="h"), host_key=KEY), "ann", []),
    "another machine": (Runner(name="o", address=Address(host="h"), host_key="k", authorized=True), "ann", []),
}


@pytest.mark.parametrize(("other", "user", "used_by"), OTHERS.values(), ids=OTHERS)
def test_who_leaves_hears_who_still_needs_the_servers_key(
    world: World, other: Runner, user: str, used_by: list[str]
) -> None:
    secret = registered(world)
    world.store.runners.add(other)
    world.store.runners.change("o", facts=Facts(machine="m", user=user))

    status, heard = world.call("POST", "/registrations/desk/heartbeat", {"secret": secret, "unavailable": "stopped"})

    assert (status, heard["key_used_by"]) == (200, used_by)


def test_of_two_that_leave_the_last_one_takes_the_key(world: World) -> None:
    secrets = {}
    for name in ("desk", "table"):
        secrets[name] = registered(world, name=name)
        world.store.runners.add(Runner(name=name, address=Address(host=name), host_key=KEY, authorized=True))
        world.store.runners.change(name, facts=Facts(machine="m", user="ann"))

    def leaves(name: str) -> Any:
        beat = {"secret": secrets[name], "unavailable": "stopped"}
        return world.call("POST", f"/registrations/{name}/heartbeat", beat)[1]["key_used_by"]

    assert leaves("desk") == ["table"]
    assert leaves("table") == []
