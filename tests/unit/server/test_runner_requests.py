"""What a request to add a runner may contain."""

from __future__ import annotations

import pytest

from dstack.errors import UsageError
from dstack.model.api.runners import AddRunner
from dstack.model.runner.runner import DEFAULT_ROOT, Address
from dstack.server.runners.definition import default_name, root_of


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
