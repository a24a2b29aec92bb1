"""The server is killed at every named point of a run, and the run still happens exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.plan import Plan, PlannedRun, Work
from tests.chaos.play import play
from tests.chaos.world import World

WORK = (Work(lines=20, size=1000, seconds=0.3), Work(lines=20, size=1000, seconds=0.1))


def planned(storage: str, stop: float | None = None) -> Plan:
    """One run of two jobs, the second of which uses what the first one made."""
    return Plan(0, storage, (PlannedRun("run1", 0, WORK, stop=stop),), ())


@pytest.mark.long
@pytest.mark.parametrize("storage", ["folder", "s3"])
def test_a_kill_at_each_point(world: World, storage: str, tmp_path: Path) -> None:
    # Given the points that a run passes
    record = tmp_path / "points"
    assert play(world, planned(storage), {"CHAOS_RECORD": str(record)}) == []
    points = list(dict.fromkeys(record.read_text().splitlines()))
    assert len(points) > 20, points

    # When the server is killed at one of them, and started again
    broken = {point: play(world, planned(storage), {"CHAOS_KILL": point}) for point in points}

    # Then the run has happened as if nothing had
    assert {point: found for point, found in broken.items() if found} == {}
