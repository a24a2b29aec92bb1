"""The server is killed at every named point of a run, and the run still happens exactly once."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from tests.chaos.plan import Plan, PlannedRun, Work
from tests.chaos.play import Play
from tests.chaos.world import World

KILLS = 12
"""How often the server is killed while one plan is played, if the plan comes by so many points."""


def every_end(number: int, storage: str) -> Plan:
    """Two jobs of which the second uses what the first one made, the same once more, a stop, an abort, and a retry."""
    first, second = Work(lines=20, size=1000, seconds=0.3), Work(lines=20, size=1000, seconds=0.1)
    long, failing = Work(lines=50, size=1000, seconds=20), Work(lines=1, size=1, seconds=0.1, code=3)
    name = f"p{number}r"
    runs = (
        PlannedRun(f"{name}1", 0, (first, second)),
        PlannedRun(f"{name}2", 0.5, (first, second), same=f"{name}1"),
        PlannedRun(f"{name}3", 0, (long,), stop=1),
        PlannedRun(f"{name}4", 0, (long,), stop=1, abort=True),
        PlannedRun(f"{name}5", 0, (failing,), attempts=2, causes=("error",)),
    )
    return Plan(number, storage, runs, ())


@pytest.mark.long
@pytest.mark.parametrize("storage", ["folder", "s3"])
def test_a_kill_at_each_point(world: World, storage: str, tmp_path: Path) -> None:
    # Given the points that these runs pass
    record, kill = tmp_path / "points", tmp_path / "kill"
    environment = {"CHAOS_RECORD": str(record), "CHAOS_KILL": str(kill)}
    with world.fresh(storage, environment) as site:
        assert Play(site, every_end(0, storage)).run() == []
        points = list(dict.fromkeys(record.read_text().splitlines()))
        assert len(points) > 40, points

        # When the server is killed at each of them and started again, at points that lie apart in the same plan
        left, missed = points, list[str]()
        for number in count(1):
            chosen = left[:: max(1, len(left) // KILLS)]
            kill.write_text("".join(f"{point}\n" for point in chosen))
            with site.kept_up(environment):
                broken = Play(site, every_end(number, storage)).run()

            # Then the runs have happened as if nothing had
            assert broken == [], chosen
            again = kill.read_text().splitlines()
            left = [point for point in left if point not in chosen or (point in again and point not in missed)]
            missed += again
            if not left:
                break

    # And there were few points that a plan passes only now and then
    assert len(set(missed) & set(kill.read_text().splitlines())) < len(points) / 5, missed
