"""What a request to add a runner may contain."""

from __future__ import annotations

import pytest

from dstack.errors import UsageError
from dstack.model.api.runners import AddRunner
from dstack.model.runner.runner import DEFAULT_ROOT, Address
from dstack.server.runner_service import root_of


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
