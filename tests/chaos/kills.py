"""Kills the server at every named point of a run, and writes a line of JSON for each plan that it plays.

`python -m tests.chaos.kills STORAGE`. It stops early, and cleans up, when its stdin ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from tests.chaos.plan import Plan, PlannedRun, Work
from tests.chaos.play import Play
from tests.chaos.worker import interruptible
from tests.chaos.world import Site, World

KILLS = 16
"""How often the server is killed while one plan is played, if the plan comes by so many points."""
FEW = 40
"""A plan comes by more points than that."""

Broken = tuple[Plan, list[str]]


def main(storage: str) -> None:
    """Play plans until the server was killed at each point that they come by."""
    world = World()
    try:
        begin = time.monotonic()
        for planned, broken in at_each_point(world, storage):
            now = time.monotonic()
            label = f"at the points of {storage}, {planned.seed}"
            result = {"seed": label, "seconds": now - begin, "broken": broken, "plan": str(planned), "reasons": []}
            print(json.dumps(result), flush=True)
            begin = now
    finally:
        world.close()


def at_each_point(world: World, storage: str) -> Iterator[Broken]:
    """Yield each plan with the promises that it broke. The first one only finds the points."""
    record, kill = world.folder / "points", world.folder / "kill"
    environment = {"CHAOS_RECORD": str(record), "CHAOS_KILL": str(kill)}
    with world.fresh(storage, environment) as site:
        planned = every_end(0, storage)
        broken = Play(site, planned).run()
        points = list(dict.fromkeys(record.read_text().splitlines()))
        yield planned, broken + ([] if len(points) > FEW else [f"it came by few points: {points}"])
        yield from killed(site, points, kill, lambda number: every_end(number, storage), environment)


def killed(
    site: Site, points: list[str], kill: Path, plans: Callable[[int], Plan], environment: dict[str, str]
) -> Iterator[Broken]:
    """Kill the server at each point, at some that lie apart in the same plan. A point that two plans did not come by is
    one that they pass only now and then, and there are few of these."""
    left, missed = points, list[str]()
    for number in count(1):
        chosen = left[:: max(1, len(left) // KILLS)]
        kill.write_text("".join(f"{point}\n" for point in chosen))
        with site.kept_up(environment):
            broken = Play(site, plans(number)).run()
        again = kill.read_text().splitlines()
        left = [point for point in left if point not in chosen or (point in again and point not in missed)]
        rare = set(missed) & set(again)
        missed += again
        if len(rare) > len(points) / 5:
            broken.append(f"the plans came by these points only now and then: {sorted(rare)}")
        yield plans(number), [f"killed at {', '.join(chosen)}: {line}" for line in broken]
        if not left:
            return


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


if __name__ == "__main__":
    interruptible()
    main(sys.argv[1])
