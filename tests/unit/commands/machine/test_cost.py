"""How many processes the questions take that dstack asks often, in the background."""

from __future__ import annotations

import pytest

from dstack.commands.machine.probe import probe
from dstack.commands.machine.sample import sample
from dstack.model.paths import HostLayout
from dstack.model.runner.host_context import HostContext
from tests.unit.commands.hosts import processes

CONTEXT = HostContext(HostLayout("~/.dstack-host", "", "s"), "true")
KNOWN = {"a-1": "0" * 64, "b-1": "f" * 64}


@pytest.mark.parametrize("containers", [{}, KNOWN])
def test_a_sample_reads_files_and_starts_nothing(containers: dict[str, str]) -> None:
    # The one is the subshell that finds the machine's id.
    assert processes(sample(CONTEXT, containers, cpus=2).script) <= 1


def test_a_sample_that_asks_docker_starts_little_more() -> None:
    assert processes(sample(CONTEXT, cpus=2).script) <= 2


def test_a_probe() -> None:
    assert processes(probe("~/.dstack-host", "true").script) <= 25
