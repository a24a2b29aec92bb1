"""Machines as users see them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from dstack.engine.fleet.condition import Condition
from dstack.engine.fleet.runners import Fleet
from dstack.hosts.pool import Pool
from dstack.model.api.runners import RunnerView
from dstack.model.paths import ServerLayout
from dstack.model.runner.runner import Address, Facts, Gpu, Runner
from dstack.store.store import Store


def view(tmp_path: Path, found: tuple[Gpu, ...], declared: int | None) -> RunnerView:
    with closing(Store(ServerLayout(tmp_path))) as store:
        facts = Facts(machine="m", cpus=8, gpus=found)
        store.runners.add(Runner(name="lab", address=Address(host="lab"), gpus=declared, facts=facts))
        machines = Fleet(store, Pool(), lambda: None)
        machines.conditions = {"lab": Condition("ready")}
        return machines.view(store.runners.require("lab"))


WHOLE, SPLIT = Gpu(index=0, name="A100"), Gpu(index=1, name="A100", mig=("1g.10gb",))
LOST = Gpu(index=1, name="A100", trouble="GPU is lost")


@pytest.mark.parametrize(
    ("found", "declared", "shown", "free"),
    [
        ((WHOLE, SPLIT), None, [0, 1], 1),
        ((WHOLE, LOST), None, [0, 1], 1),
        ((), 2, [0, 1], 2),
        ((WHOLE,), 2, [0, 1], 2),
        ((WHOLE, LOST), 2, [0, 1], 1),
        ((), None, [], 0),
    ],
)
def test_gpus_that_are_found_and_those_that_are_declared(
    tmp_path: Path, found: tuple[Gpu, ...], declared: int | None, shown: list[int], free: int
) -> None:
    seen = view(tmp_path, found, declared)

    assert ([gpu.index for gpu in seen.gpus], seen.gpus_free) == (shown, free)
