"""The server's machine loses power at any moment, and every run that was accepted still happens exactly once."""

from __future__ import annotations

import os
import random
from itertools import accumulate
from pathlib import Path

import pytest

from tests.chaos.faults.server import PowerCut
from tests.chaos.plan import Plan, PlannedFault, PlannedRun, Work
from tests.chaos.play import play
from tests.chaos.world import World
from tests.environment.waiting import until

STEPS = [
    "after commit of job.queued",
    "after commit of job.placed",
    "before launching the job",
    "after launching the job",
    "after commit of job.running",
    "after a piece of the log",
    "after commit of job.uploading",
    "after listing the artifacts",
    "before commit of job.done",
    "after commit of job.done",
    "before keeping the artifacts",
    "after keeping the artifacts",
]
"""What happens in a run, in order; see points.py."""
CUTS = int(os.environ.get("CUTS", "3"))
"""At how many random moments the power is cut, for each kind of storage."""
AT_ONCE = 5
"""At most so many cuts in one plan."""


class CutWhereFrozen(PowerCut):
    """The server's machine loses power at the point at which its process stops itself."""

    def begin(self) -> None:
        until(self.frozen, "the server comes by the point", 60)
        super().begin()

    def frozen(self) -> bool:
        """Whether the server's process is stopped."""
        return any(Path(f"/proc/{pid}/stat").read_text().split()[2] == "T" for pid in self.site.running)


def at_random(seed: int, storage: str, cuts: int) -> Plan:
    """The power is cut every few seconds, and runs are submitted all the time."""
    chance = random.Random(seed)
    moments = list(accumulate(chance.uniform(1, 4) for _ in range(cuts)))
    runs = [
        PlannedRun(
            f"cut{seed}r{number}", chance.uniform(0, moments[-1]), (work(chance), work(chance))[: chance.randint(1, 2)]
        )
        for number in range(1, cuts + 2)
    ]
    return Plan(seed, storage, tuple(runs), tuple(PlannedFault(PowerCut, at, 0.1, seed) for at in moments))


def work(chance: random.Random) -> Work:
    return Work(chance.choice([1, 500]), chance.choice([1, 300_000]), chance.uniform(0.1, 2))


def lost(broken: list[str]) -> list[str]:
    """The broken promises, without what submissions that were not accepted leave on the server's disk."""
    return [line for line in broken if not line.startswith("incoming/")]


def test_what_was_acknowledged_is_known_afterwards(world: World) -> None:
    with world.fresh("folder") as site:
        # Given commands that have just succeeded
        before = site.ask("config")
        site.home.run("secrets", "set", "TOKEN", stdin="hidden")
        site.must("config", "--max-gpus-per-user", "3")
        site.must("runners", "drain", "machine1", "--reason", "noisy fan")
        site.must("runners", "remove", "machine2")

        # When the power is cut
        site.cut_power()
        site.serve()

        # Then the server knows
        assert [secret["name"] for secret in site.ask("secrets", "list")] == ["TOKEN"]
        assert site.ask("config") == {**before, "max_gpus_per_user": 3}
        assert [(each["name"], each["drained"]) for each in site.ask("runners")] == [("machine1", "noisy fan")]


@pytest.mark.parametrize("storage", ["folder", "s3"])
def test_random_moments(world: World, storage: str) -> None:
    for seed, begin in enumerate(range(0, CUTS, AT_ONCE), 1):
        planned = at_random(seed, storage, min(AT_ONCE, CUTS - begin))
        broken = lost(play(world, planned))
        assert not broken, "\n".join([str(planned), *broken])


@pytest.mark.parametrize("step", STEPS)
def test_each_step(world: World, step: str) -> None:
    # Given one run of two jobs, the second of which uses what the first one made
    runs = (PlannedRun("run1", 0, (Work(lines=20, size=1000, seconds=0.3), Work(lines=20, size=1000, seconds=0.1))),)
    planned = Plan(0, "folder", runs, (PlannedFault(CutWhereFrozen, 0, 0.1, 0),))

    # When the power is cut the first time that the server comes by this step, and it is started again
    broken = play(world, planned, {"CHAOS_FREEZE": step})

    # Then the run has happened as if nothing had
    assert not lost(broken), "\n".join(broken)
