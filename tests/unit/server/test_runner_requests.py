"""What a request to add a runner may contain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dstack.errors import UsageError
from dstack.model.api.runners import AddRunner
from dstack.model.runner.runner import DEFAULT_ROOT, Address, Runner
from dstack.server.runners.definition import default_name, root_of
from tests.unit.server.world import World


def request(root: str | None) -> AddRunner:
    return AddRunner(address=Address(host="lab1"), root=root)


@pytest.mark.parametrize("root", ["/data/dstack", "/my data/it's", "~/x"])
def test_a_root_may_be_any_folder_that_docker_mounts(root: str) -> None:
    assert root_of(request(root)) == root


@pytest.mark.parametrize("root", [None, ""])
def test_without_a_root_there_is_a_default(root: str | None) -> None:
    assert root_of(request(root)) == DEFAULT_ROOT


@pytest.mark.parametrize("root", ["/a,b", '/a"b'])
def test_a_root_that_docker_can_not_mount_is_refused_before_any_job_fails(root: str) -> None:
    with pytest.raises(UsageError, match="which Docker can't mount"):
        root_of(request(root))


@pytest.mark.parametrize(
    ("address", "taken", "name"),
    [
        (Address(), (), "local"),
        (Address(host="gw.lab", user="ann", port=2201), (), "gw.lab"),
        (Address(host="gw.lab", user="ann", port=2202), ("gw.lab",), "gw.lab-2202"),
        (Address(host="gw.lab", user="ann", port=2201), ("gw.lab", "gw.lab-2201"), "gw.lab-2201-ann"),
        (Address(host="gw.lab", user="ann"), ("gw.lab",), "gw.lab-ann"),
        (Address(host="fe80::1%eth0", port=2202), ("fe80--1-eth0", "fe80-1-eth0"), "fe80-1-eth0-2202"),
        (Address(host="gw.lab"), ("gw.lab",), "gw.lab"),
    ],
)
def test_a_default_name_tells_machines_apart(address: Address, taken: tuple[str, ...], name: str) -> None:
    assert default_name(address, taken.__contains__) == name


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_a_definition_is_the_request_that_makes_the_same_runner(world: World) -> None:
    known = Runner(
        name="lab",
        address=Address(host="lab1", user="ann", port=2222, jump="gate"),
        labels=("a", "b"),
        gpus=2,
        max_jobs=3,
        root="/data/dstack",
        docker="podman",
        source="/inventory",
        allow_mounts=("/data",),
    )
    world.store.runners.add(known)

    _, runners = world.call("GET", "/runners?fresh=inf")
    status, _ = world.call("PUT", "/runners/lab", runners[0]["definition"])

    assert status == 200
    assert world.store.runners.require("lab") == known


@pytest.mark.parametrize("most", [0, 7, None])
def test_how_many_jobs_share_a_runner_can_be_changed(world: World, most: int | None) -> None:
    world.store.runners.add(Runner(name="lab", address=Address(host="lab1"), max_jobs=3))

    status, _ = world.call("PUT", "/runners/lab", {"address": {"host": "lab1"}, "max_jobs": most})

    assert (status, world.store.runners.require("lab").max_jobs) == (200, most)
