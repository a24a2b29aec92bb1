"""One scheduling pass over 10,000 queued jobs on 1,000 runners, in each situation that it may find."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.resources import Ask
from dstack.model.runner.runner import Address, Facts, Gpu, Runner
from dstack.scheduling.schedule import schedule
from dstack.scheduling.types import Lease, Machine, Waiting

GB = 1024**3
DRAINED = Reason(ReasonCode.RUNNER_DRAINED, "drained: disk swap")
RUNNERS, JOBS = 1000, 10_000
ASKS = [
    *(Ask(gpus=count) for count in (1, 2, 4, 8)),
    *(Ask(gpus=count, gpu_name="A100", gpu_memory=40 * GB) for count in (1, 2, 8)),
    *(Ask(gpus=1, cpu=cpu, memory=cpu * 4 * GB) for cpu in (4, 8)),
    Ask(cpu=4, memory=16 * GB),
    Ask(),
]
MANY = [
    Ask(gpus=gpus, cpu=cpu, memory=memory * GB) for gpus in (0, 1, 2, 4, 8) for cpu in (1, 8, 48) for memory in (8, 96)
]


def machines(dice: random.Random, sizes: Sequence[int] = (8,)) -> list[Machine]:
    """Return runners: a quarter have A100s, every tenth is drained, and no two have the same memory and disk."""
    found = []
    for number in range(RUNNERS):
        kind = ("A100", 40 * GB) if number % 4 == 0 else ("RTX 3090", 24 * GB)
        gpus = tuple(Gpu(index=index, name=kind[0], memory=kind[1]) for index in range(dice.choice(sizes)))
        memory, disk = 512 * GB + dice.randrange(2**20), 10**13 + dice.randrange(10**9)
        facts = Facts(machine=str(number), cpus=64, memory=memory, disk_free=disk, gpus=gpus)
        runner = Runner(name=f"lab{number}", address=Address(host="h"), labels=(kind[0],), facts=facts)
        found.append(Machine(runner, DRAINED if number % 10 == 0 else None))
    return found


def queue(dice: random.Random, asks: Sequence[Ask] = ASKS) -> list[Waiting]:
    """Return jobs of all sizes, users and priorities, oldest first. Some may run only on certain runners."""
    return [
        Waiting(
            id=f"job{number}",
            ask=dice.choice(asks),
            runners=dice.choice([(), (), (), ("A100",)]),
            run=f"run{number}",
            user=f"user{number % 50}",
            priority=dice.choice([0, 0, 0, 10]),
            submitted=float(number),
        )
        for number in range(JOBS)
    ]


def leases(dice: random.Random, all_machines: Sequence[Machine], free: float, *, yields: bool = False) -> list[Lease]:
    """Lease all GPUs except this share of them."""
    return [
        Lease(
            f"l{one.runner.name}-{gpu.index}",
            one.runner.name,
            f"r{one.runner.name}",
            "ann",
            (gpu.index,),
            Ask(gpus=1, cpu=8, memory=64 * GB),
            **({"preemptible": True} if yields else {}),
        )
        for one in all_machines
        for gpu in one.gpus
        if dice.random() >= free
    ]


Case = tuple[list[Waiting], list[Machine], list[Lease], "int | None"]
Made = Callable[[random.Random], Case]


def cases() -> dict[str, Made]:
    """Measure each situation that a pass may find."""

    def share(free: float, **more: bool) -> Made:
        def made(dice: random.Random) -> Case:
            found = machines(dice)
            return queue(dice), found, leases(dice, found, free, **more), None

        return made

    def limited(dice: random.Random) -> Case:
        found = machines(dice)
        jobs = [replaced(job, user=f"user{number % 2000}") for number, job in enumerate(queue(dice))]
        return jobs, found, leases(dice, found, 0.1), 2

    def mixed(dice: random.Random) -> Case:
        found = machines(dice, (1, 2, 4, 8, 16))
        return queue(dice, MANY), found, leases(dice, found, 0.1), None

    def placed(dice: random.Random) -> Case:
        found = machines(dice)
        names = [one.runner.name for one in found]
        near = [{name: dice.choice([1, 4, 7]) for name in dice.sample(names, 20)} for _ in range(JOBS)]
        jobs = [replaced(job, near=has) for job, has in zip(queue(dice), near, strict=True)]
        return jobs, found, leases(dice, found, 0.1), None

    return {
        "none free": share(0.0),
        "5% free": share(0.05),
        "10% free": share(0.1),
        "half free": share(0.5),
        "all free": share(1.0),
        "2,000 users with limits, 10% free": limited,
        "boxes and jobs of many sizes": mixed,
        "artifacts and images lie on some, 10% free": placed,
        "none free, all that runs gives way": share(0.0, yields=True),
    }


def replaced(job: Waiting, **changes: object) -> Waiting:
    fields = {name: getattr(job, name) for name in job.__struct_fields__}
    return Waiting(**{**fields, **changes})


def milliseconds(case: Case) -> float:
    """Return the processor time of a pass: other programs share the processors."""
    jobs, found, held, limit = case
    start = time.process_time()
    schedule(jobs, found, held, 1e6, max_gpus=limit)
    return (time.process_time() - start) * 1000
