"""How long one pass over the queue takes: 1,000 runners and 10,000 queued jobs. `schedule.py [ROUNDS]`"""

from __future__ import annotations

import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dstack.engine.capacity import Lease, Machine
from dstack.engine.schedule import Waiting, schedule
from dstack.model.resources import Ask
from dstack.model.runner import Address, Facts, Gpu, Runner

GB = 1024**3
RUNNERS, JOBS = 1000, 10_000
ASKS = [
    *(Ask(gpus=count) for count in (1, 2, 4, 8)),
    *(Ask(gpus=count, gpu_name="A100", gpu_memory=40 * GB) for count in (1, 2, 8)),
    *(Ask(gpus=1, cpu=cpu, memory=cpu * 4 * GB) for cpu in (4, 8)),
    Ask(cpu=4, memory=16 * GB),
    Ask(),
]


def machines() -> list[Machine]:
    """A quarter have A100s, every tenth is drained."""
    found = []
    for number in range(RUNNERS):
        kind = ("A100", 40 * GB) if number % 4 == 0 else ("RTX 3090", 24 * GB)
        gpus = tuple(Gpu(index=index, name=kind[0], memory=kind[1]) for index in range(8))
        facts = Facts(machine=str(number), cpus=64, memory=512 * GB, disk_free=10**13, gpus=gpus)
        runner = Runner(name=f"lab{number}", address=Address(host="h"), labels=(kind[0],), facts=facts)
        found.append(Machine(runner, "drained: disk swap" if number % 10 == 0 else None))
    return found


def queue(dice: random.Random) -> list[Waiting]:
    """Jobs of all sizes, users and priorities, oldest first; some may run on some runners only."""
    return [
        Waiting(
            id=f"job{number}",
            ask=dice.choice(ASKS),
            runners=dice.choice([(), (), (), ("A100",)]),
            run=f"run{number}",
            user=f"user{number % 50}",
            priority=dice.choice([0, 0, 0, 10]),
            submitted=float(number),
        )
        for number in range(JOBS)
    ]


def leases(dice: random.Random) -> list[Lease]:
    """Almost every GPU is taken."""
    found = []
    for number in range(RUNNERS):
        taken = range(8) if dice.random() < 0.95 else range(7)
        found += [
            Lease(f"l{number}-{gpu}", f"lab{number}", f"r{number}", "ann", (gpu,), Ask(gpus=1, cpu=8, memory=64 * GB))
            for gpu in taken
        ]
    return found


def milliseconds(jobs: Sequence[Waiting], held: Sequence[Lease], rounds: int) -> tuple[float, int]:
    """The median of a pass, and how many jobs it places."""
    all_machines = machines()
    times = []
    for _ in range(rounds):
        start = time.process_time()
        made = schedule(jobs, all_machines, held, 1e6)
        times.append((time.process_time() - start) * 1000)
    return statistics.median(times), len(made.placements)


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    dice = random.Random(1)
    jobs, held = queue(dice), leases(dice)
    print(f"one pass over {JOBS} queued jobs on {RUNNERS} runners, CPU time, median of {rounds}:")
    for title, these in (("95% in use", held), ("nothing in use", [])):
        took, placed = milliseconds(jobs, these, rounds)
        print(f"  {title:<16} {took:7.1f} ms, {placed} placed")


if __name__ == "__main__":
    main()
