"""What happens in one chaos test: which runs, which faults, and when. A seed gives the same plan each time."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.chaos.faults.fault import Fault
from tests.chaos.faults.kinds import FAULTS
from tests.images import BUSYBOX

LENGTH = 5.0
"""Seconds in which a plan's runs are submitted and its faults begin."""


@dataclass(frozen=True)
class Work:
    """What one job does: it writes so many lines of log, and a file of so many bytes, within about `seconds`, and exits
    with `code`."""

    lines: int
    size: int
    seconds: float
    code: int = 0


@dataclass(frozen=True)
class PlannedRun:
    """A run: `work` of its one job, or of two jobs of which the second depends on the first. All moments are seconds
    after its submission. `same` names an earlier run with the same workflows, so that the results may be shared. `hold`
    is for how long it is held in the queue. `causes` are what it is tried again after. A `large` job needs a whole
    machine; a `preemptible` one makes way for those of higher `priority`. `deleted`: it is deleted when all is over."""

    name: str
    at: float
    work: tuple[Work, ...]
    attempts: int = 1
    stop: float | None = None
    abort: bool = False
    same: str = ""
    hold: float | None = None
    causes: tuple[str, ...] = ("lost",)
    large: bool = False
    priority: int = 0
    preemptible: bool = False
    deleted: bool = False

    @property
    def workflow(self) -> str:
        return f"{self.same or self.name}-{len(self.work)}"

    def __str__(self) -> str:
        marks = [
            *([f"the same as {self.same}"] if self.same else []),
            *([f"{self.attempts} attempts on {', '.join(self.causes)}"] if self.attempts > 1 else []),
            *([f"held for {self.hold:.1f} s"] if self.hold is not None else []),
            *([f"{'aborted' if self.abort else 'stopped'} after {self.stop:.1f} s"] if self.stop is not None else []),
            *(["large"] if self.large else []),
            *([f"priority {self.priority}"] if self.priority else []),
            *(["preemptible"] if self.preemptible else []),
            *(["deleted"] if self.deleted else []),
        ]
        return f"{self.at:4.1f} s  run {self.name}: {'; '.join([*map(str, self.work), *marks])}"


@dataclass(frozen=True)
class PlannedFault:
    """A fault that begins at `at` and lasts for `seconds`."""

    kind: type[Fault]
    at: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class Plan:
    """All of it. `storage` is folder or s3."""

    seed: int
    storage: str
    runs: tuple[PlannedRun, ...]
    faults: tuple[PlannedFault, ...]

    def __str__(self) -> str:
        lines = [f"plan {self.seed}, storage: {self.storage}"]
        lines += [f"  {run}" for run in self.runs]
        lines += [f"  {fault.at:4.1f} s  {fault.kind.__name__} for {fault.seconds:.1f} s" for fault in self.faults]
        return "\n".join(lines)


def plan(seed: int, kinds: tuple[type[Fault], ...] = FAULTS) -> Plan:
    """Return the plan of this seed."""
    chance = random.Random(seed)
    storage = chance.choice(["folder", "s3"])
    runs: list[PlannedRun] = []
    for number in range(1, chance.randint(2, 4) + 1):
        runs.append(_run(chance, f"p{seed}r{number}", runs))
    fitting = [kind for kind in kinds if kind.needs in ("", storage)]
    faults = sorted((_fault(chance, fitting) for _ in range(chance.randint(3, 5))), key=lambda fault: fault.at)
    return Plan(seed, storage, tuple(runs), _apart(faults))


def _run(chance: random.Random, name: str, before: list[PlannedRun]) -> PlannedRun:
    at = chance.uniform(0, LENGTH / 2)
    originals = [run for run in before if not run.same]
    if originals and chance.random() < 0.2:
        other = chance.choice(originals)
        return PlannedRun(name, at, other.work, same=other.name)
    kind = chance.choice(["plain", "plain", "plain", "stopped", "held", "large", "tried again"])
    return PlannedRun(
        name=name,
        at=at,
        work=tuple(_work(chance) for _ in range(chance.choice([1, 1, 2]))),
        attempts=chance.choice([2, 3]) if kind == "tried again" else chance.choice([1, 1, 3]),
        stop=chance.uniform(0.2, 3) if kind == "stopped" else None,
        abort=chance.random() < 0.5,
        hold=chance.uniform(0, 1) if kind == "held" else None,
        causes=("lost", "error") if kind == "tried again" else ("lost",),
        large=kind == "large",
        priority=chance.choice([0, 5, 10]) if kind == "large" else 0,
        preemptible=chance.random() < 0.5,
        deleted=chance.random() < 0.2,
    )


def _work(chance: random.Random) -> Work:
    code = 0 if chance.random() < 0.8 else chance.choice([1, 3, 42])
    return Work(chance.choice([1, 50, 2000]), chance.choice([0, 1, 300_000]), chance.uniform(0.1, 3), code)


def _fault(chance: random.Random, kinds: list[type[Fault]]) -> PlannedFault:
    return PlannedFault(chance.choice(kinds), chance.uniform(0, LENGTH), chance.uniform(0.1, 3), chance.getrandbits(32))


def _apart(faults: list[PlannedFault]) -> tuple[PlannedFault, ...]:
    """Leave out faults of what another one breaks at that time."""
    kept: list[PlannedFault] = []
    for fault in faults:
        others = [other for other in kept if (other.kind.breaks or other.kind) == (fault.kind.breaks or fault.kind)]
        if all(fault.at > other.at + other.seconds + 1 for other in others):
            kept.append(fault)
    return tuple(kept)


def workflows(planned: Plan, witness: str) -> str:
    """The workflows.yaml of a plan. Each job tells the witness when its commands begin and end."""
    lines = ["workflows:"]
    for run in (run for run in planned.runs if not run.same):
        for number, work in enumerate(run.work, 1):
            name = f"{run.name}-{number}"
            lines += [
                f"  - name: {name}",
                f"    image: {BUSYBOX}",
                "    stop-grace: 2s",
                f"    retry: {{attempts: {run.attempts}, on: [{', '.join(run.causes)}]}}",
                f"    priority: {run.priority}",
                f"    preemptible: {str(run.preemptible).lower()}",
                "    max-duration: 1h",
                *(["    resources: {cpu: 2}"] if run.large else []),
                f"    mounts: ['{witness}:/witness']",
                f"    artifacts: ['made-{name}']",
                f"    depends-on: {{workflows: [{f'{run.name}-1' if number > 1 else ''}]}}",
                "    commands:",
                '      - me=$DSTACK_JOB_ID-$DSTACK_ATTEMPT; echo "begun $me" >>/witness/told',
                f"      - {_log_loop(work)}",
                f"      - (mkdir -p made-{name} && head -c {work.size} /dev/zero >made-{name}/zeros"
                f" && echo {name} >made-{name}/name) 2>/dev/null",
                f'      - echo "ended $me {work.code}" >>/witness/told; exit {work.code}',
            ]
    return "\n".join(lines) + "\n"


def _log_loop(work: Work) -> str:
    steps = max(1, round(work.seconds / 0.1))
    each = max(1, work.lines // steps)
    return (
        f'i=0; while [ $i -lt {work.lines} ]; do i=$((i+1)); echo "line $i";'
        f" if [ $((i % {each})) = 0 ]; then sleep 0.1; fi; done"
    )


def log_of(work: Work) -> bytes:
    """The log that a job with this work writes."""
    return b"".join(b"line %d\n" % number for number in range(1, work.lines + 1))
