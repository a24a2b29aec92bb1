"""What the scheduler reads and answers: machines, leases, jobs that wait, placements. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from dstack.model.job.reasons import Reason
from dstack.model.job.resources import NOTHING, Ask
from dstack.model.runner.runner import Gpu, Runner
from dstack.model.text.units import SOLD

SHARED_JOBS = 4
"""How many jobs that request no resources share a runner; one per CPU if it has more CPUs than this."""


class Lease(Struct, frozen=True, gc=False):
    """What an unfinished job holds on a runner, `since` when (seconds). `preemptible`: jobs of higher priority may stop
    it. `ending`: it will soon be free."""

    job: str
    runner: str
    run: str = ""
    user: str = ""
    gpus: tuple[int, ...] = ()
    ask: Ask = NOTHING
    since: float = 0.0
    priority: int = 0
    preemptible: bool = False
    ending: bool = False


class Load(Struct, frozen=True):
    """What is used on a machine outside dstack: CPUs, and memory in bytes."""

    cpu: float = 0.0
    memory: int = 0


IDLE = Load()


@dataclass(frozen=True)
class Machine:
    """A runner as it is now. `trouble` says why it takes no jobs, in words that follow "NAME is"; None if it is ready.
    `foreign` says by index who uses a GPU outside dstack, `load` what else is used there, `gpu_trouble` why no job
    gets its GPUs. Runners with the same `machine` are one machine, and share what it has; "" stands for the name."""

    runner: Runner
    trouble: Reason | None = None
    foreign: Mapping[int, str] = field(default_factory=dict)
    gpu_trouble: Reason | None = None
    load: Load = IDLE
    machine: str = ""

    @property
    def identity(self) -> str:
        """The machine whose leases these are."""
        return self.machine or self.runner.name

    @property
    def cpus(self) -> int:
        return self.runner.facts.cpus if self.runner.facts else 0

    @property
    def memory(self) -> float:
        """In bytes, as sold: 64 GB of RAM count as 64 GB, although the kernel reports less."""
        return self.runner.facts.memory / SOLD if self.runner.facts else 0

    @property
    def slots(self) -> int:
        """How many jobs that request no resources it takes at once."""
        return max(SHARED_JOBS, self.cpus) if self.runner.max_jobs is None else self.runner.max_jobs

    @property
    def gpus(self) -> Sequence[Gpu]:
        known = {gpu.index: gpu for gpu in (self.runner.facts.gpus if self.runner.facts else ())}
        return [known.get(index) or Gpu(index=index) for index in self.runner.gpu_indexes]


Eligibility = tuple["str | None", tuple[str, ...], tuple[str, ...]]
"""What decides which runners a job may use: the pin of its run, its workflow's runners, the folders that it mounts."""


class Waiting(Struct, frozen=True, gc=False):
    """A job that could start, because its dependencies are done. `pin` is the name or label that its run is limited to,
    `runners` those that its workflow allows, `mounts` the runner's folders that it mounts. `submitted` is in seconds on
    the same clock as `now`. `near` says how much of what it needs each runner already has. `room_on` is the runner on
    which an earlier pass promised it the room of jobs that give way."""

    id: str
    ask: Ask = NOTHING
    pin: str | None = None
    runners: tuple[str, ...] = ()
    run: str = ""
    user: str = ""
    priority: int = 0
    submitted: float = 0.0
    near: Mapping[str, int] = {}
    mounts: tuple[str, ...] = ()
    room_on: str | None = None

    @property
    def eligibility(self) -> Eligibility:
        return self.pin, self.runners, self.mounts


class Placement(Struct, frozen=True, gc=False):
    """A job's runner, and the indexes of the GPUs that it gets."""

    runner: str
    gpus: tuple[int, ...]


class Schedule(Struct, frozen=True):
    """Placements, and a reason for every job without one. `order` lists the jobs without one, first come first.
    `preemptions` maps each running job that has to give way to the waiting job that it makes room for; `promises` maps
    a waiting job to the runner on which room is made for it. `choices` has the code that says
    why each placed job got its runner."""

    placements: dict[str, Placement]
    reasons: dict[str, Reason]
    order: list[str]
    preemptions: dict[str, str] = {}
    promises: dict[str, str] = {}
    choices: dict[str, str] = {}
