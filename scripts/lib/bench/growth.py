"""What things cost when everything grows: runs, files, logs, machines and artifacts."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import queue_pass
import states
from measure import Way, finished
from plot import Points
from rows.code import JOB, snapshot
from rows.data import MAKE, collected
from world import World

from dstack.model.paths import ServerLayout
from dstack.store.logs import Logs

ROUNDS = 5


@dataclass(frozen=True)
class Curve:
    """`measure` returns lines of (size, cost)."""

    title: str
    size: str
    unit: str
    measure: Callable[[World], Mapping[str, Points]]


def median(way: Way, rounds: int = ROUNDS) -> float:
    way()
    return statistics.median(way() for _ in range(rounds))


def lines(sizes: Sequence[int], ways: Callable[[int], Mapping[str, Way]]) -> dict[str, Points]:
    """Measure each way at each size."""
    found: dict[str, list[tuple[float, float]]] = {}
    for size in sizes:
        for name, way in ways(size).items():
            found.setdefault(name, []).append((float(size), median(way)))
    return dict(found)


def powers(world: World, first: int, last: int, small: int) -> list[int]:
    return [10**power for power in range(first, world.size(last, small) + 1)]


def runs(world: World) -> Mapping[str, Points]:
    commands = {
        "dstack runs": ["runs"],
        "dstack runs RUN": ["runs", "run-77"],
        "dstack runs --status lost": ["runs", "--status", "lost"],
        "dstack prune --dry-run --keep-last 10": ["prune", "--dry-run", "--json", "--keep-last", "10"],
    }

    def at(size: int) -> dict[str, Way]:
        home = world.work / f"grown-{size}"
        states.make(home, size)
        return {name: finished(["env", f"DSTACK_HOME={home}", "dstack", *words]) for name, words in commands.items()}

    return lines(powers(world, 2, 6, 3), at)


def files(world: World) -> Mapping[str, Points]:
    def at(size: int) -> Mapping[str, Way]:
        root = world.project(f"files-{size}", JOB.format(image=world.image), size)
        return snapshot(root)

    return lines(powers(world, 1, 5, 3), at)


def logs(world: World) -> Mapping[str, Points]:
    layout = ServerLayout(world.work / "log-sizes")
    layout.logs.mkdir(parents=True)

    def at(size: int) -> dict[str, Way]:
        path = layout.log("job")
        with path.open("wb") as file:
            file.truncate(size)
            file.seek(size - 1000)
            file.write(b"a line of the log\n" * 60)
        found = Logs(layout)
        return {
            "where the last 5 lines begin": timed(lambda: found.last_lines("job", 5)),
            "tail -n 5": finished(["tail", "-n", "5", str(path)]),
        }

    return lines(powers(world, 6, 10, 7), at)


def hosts(world: World) -> Mapping[str, Points]:
    """A pass over a queue of ten jobs for each machine, processor time."""

    def at(size: int) -> dict[str, Way]:
        dice = random.Random(1)
        found = queue_pass.machines(dice)[:size]
        case = (queue_pass.queue(dice)[: 10 * size], found, queue_pass.leases(dice, found, 0.1), None)
        return {"a scheduling pass": lambda: queue_pass.milliseconds(case) / 1000}

    return lines(powers(world, 0, 3, 2), at)


def artifacts(world: World) -> Mapping[str, Points]:
    """From a job's exit to its end with so many files of 10 bytes, in a folder; and a plain copy of as many."""

    def at(size: int) -> dict[str, Way]:
        source = world.work / f"many-{size}"
        source.mkdir()
        for number in range(size):
            (source / str(number)).write_bytes(b"%d" % number)
        copy = f"rm -rf {source}.copy && cp -r {source} {source}.copy"
        command = f"mkdir out && for i in $(seq {size}); do echo $i >out/$i; done"
        root = world.project(f"files-out-{size}", MAKE.format(image=world.image, command=command))
        return {
            "dstack, from exit to done": collected(world, root),
            "cp -r": finished(["sh", "-c", copy]),
        }

    return lines(powers(world, 1, 5, 3), at)


def timed(work: Callable[[], object]) -> Way:
    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


CURVES = {
    "runs": Curve("A server with many runs", "runs", "seconds", runs),
    "files": Curve("The snapshot of a tree with one changed file", "files", "seconds", files),
    "logs": Curve("The last lines of a log", "bytes", "seconds", logs),
    "hosts": Curve("A pass over the queue, ten jobs a machine", "machines", "seconds", hosts),
    "artifacts": Curve("Artifacts in a folder", "files", "seconds", artifacts),
}
