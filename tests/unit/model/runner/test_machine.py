"""Which runners are one machine, and which only look like it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dstack.model.runner.machine import machines, same_folder, sharing
from dstack.model.runner.runner import Address, Facts, Runner

FACTS = Facts(machine="m", boot="b1", booted=1000, clock=5000, engine="E1", root="/home/ann/.dstack-host", user="ann")
ANN = Runner(name="a", address=Address(host="box", user="ann"), host_key="ssh-ed25519 K1", facts=FACTS)
LOCAL = Runner(name="local", address=Address(), facts=FACTS)


def like(before: Runner, name: str = "b", host_key: str | None = "", **facts: object) -> Runner:
    key = before.host_key if host_key == "" else host_key
    return replace(before, name=name, host_key=key, facts=replace(before.facts or FACTS, **facts))


SAME = {
    "renamed": like(ANN),
    "another account with the same Docker": like(ANN, user="bob", root="/home/bob/.dstack-host"),
    "another account with a rootless Docker": like(ANN, engine="E2", user="bob"),
    "podman, which has no id": like(ANN, engine=""),
    "a host key of another type": like(ANN, host_key="ssh-rsa K2"),
    "the server's own machine, without SSH": LOCAL,
    "rebooted since it was seen under the other name": like(ANN, boot="b2", booted=6000, clock=6100),
    "seen under the other name before its reboot": like(ANN, boot="b0", booted=1, clock=900),
    "not probed since an older version": like(ANN, boot="", booted=0, engine=""),
}
OTHER = {
    "another machine": like(ANN, machine="n", host_key="ssh-ed25519 K2", engine="E2"),
    "a clone that runs at the same time, keys and all": like(ANN, boot="b2", booted=1200, clock=5003),
    "an account that claims the machine id and the boot": like(ANN, host_key="ssh-ed25519 K2", engine="E2"),
    "an account that claims the machine id and leaves out the rest": like(
        ANN, host_key="ssh-ed25519 K2", engine="", boot="", booted=0
    ),
    "one that was never probed": Runner(name="b", address=ANN.address, host_key=ANN.host_key),
}


@pytest.mark.parametrize("other", SAME.values(), ids=SAME)
def test_two_names_of_one_machine(other: Runner) -> None:
    assert machines([ANN, other]) == {"a": "a", other.name: "a"}
    assert machines([other, ANN]) == {"a": other.name, other.name: other.name}


@pytest.mark.parametrize("other", OTHER.values(), ids=OTHER)
def test_two_machines(other: Runner) -> None:
    assert machines([ANN, other]) == {"a": "a", "b": "b"}


def test_the_servers_own_host_key_is_its_own_machine() -> None:
    podman = like(LOCAL, "local", engine="")

    assert machines([podman, like(ANN, engine="")]) == {"local": "local", "b": "b"}
    assert machines([podman, like(ANN, engine="")], ["ssh-ed25519 K1"]) == {"local": "local", "b": "local"}


@pytest.mark.parametrize("order", ["abc", "acb", "bca", "cab"])
def test_a_third_name_joins_two(order: str) -> None:
    named = {
        "a": like(ANN, "a", engine=""),
        "b": like(ANN, "b"),
        "c": like(ANN, "c", host_key="ssh-rsa K2"),
    }

    found = machines([named[name] for name in order])

    assert set(found.values()) == {found["a"]}


def test_whose_files_may_be_there() -> None:
    bob = like(ANN, user="bob", root="/home/bob/.dstack-host")
    claims = OTHER["an account that claims the machine id and the boot"]
    clone = OTHER["a clone that runs at the same time, keys and all"]

    assert [each.name for each in sharing(ANN, [ANN, bob])] == ["b"]
    assert (sharing(ANN, [claims]), sharing(ANN, [clone])) == ([claims], [])
    assert same_folder(ANN, like(ANN))
    assert not same_folder(ANN, bob)
    assert not same_folder(ANN, clone)


def test_a_folder_that_an_older_version_did_not_report() -> None:
    before = like(ANN, "a", root="")

    assert same_folder(before, like(before))
    assert not same_folder(before, like(before, user="bob"))
    assert not same_folder(before, replace(like(before), root="~/other"))
