"""Paths on a host, and which Docker it uses."""

from __future__ import annotations

import pytest

from dstack.errors import UsageError
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext


def context(root: str = "/r", docker: str = "docker") -> HostContext:
    return HostContext(HostLayout(root, "m", "s"), docker)


def test_the_docker_command_is_read_as_sh_does() -> None:
    assert context(docker="sudo -n docker").words == ("sudo", "-n", "docker")
    assert context(docker="docker -H 'unix:///a b.sock'").words == ("docker", "-H", "unix:///a b.sock")
    assert context(docker="/usr/bin/podman").podman
    assert not context().podman


@pytest.mark.parametrize("docker", ["", "  ", "docker 'x"])
def test_a_docker_command_that_is_none(docker: str) -> None:
    with pytest.raises(UsageError, match="the docker command"):
        context(docker=docker)


@pytest.mark.parametrize("root", ["", "x", "~user/x", "./x"])
def test_a_root_is_absolute_or_below_home(root: str) -> None:
    with pytest.raises(UsageError, match="is not a valid root: it must start with"):
        context(root=root)
