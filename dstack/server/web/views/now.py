"""What happens now: the machines with their GPUs, the queue, and what ended last."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from dstack.engine.engine import Engine
from dstack.model.api.runners import RunnerView
from dstack.model.api.runs import RunView
from dstack.model.job.job import Job
from dstack.model.job.status import Status
from dstack.model.runner.metrics import GpuUse
from dstack.model.runner.runner import Gpu
from dstack.server.runners.runner_service import RunnerService
from dstack.server.views import run_view

FRESH = 10.0
"""Seconds after which a machine is sampled again while somebody looks."""
QUEUED = 50
"""Most waiting jobs that the page lists."""
ORDER = ("used", "foreign", "broken", "free")
ENDED = 12
"""How many runs that ended it lists."""


@dataclass(frozen=True)
class GpuCell:
    """One GPU. `state` is free, used (by a job), foreign (used outside of dstack) or broken."""

    gpu: Gpu
    state: str
    job: Job | None = None
    user: str = ""
    use: GpuUse | None = None
    note: str = ""

    @property
    def percent(self) -> int:
        """How busy it is."""
        return (self.use.percent or 0) if self.use else 0


@dataclass(frozen=True)
class GpuGroup:
    """The GPUs of a machine that do the same: those of one job, or all that are free."""

    cells: list[GpuCell]

    @property
    def first(self) -> GpuCell:
        return self.cells[0]

    @property
    def percent(self) -> int:
        return round(sum(cell.percent for cell in self.cells) / len(self.cells))

    @property
    def memory_used(self) -> int:
        return sum(cell.use.memory_used for cell in self.cells if cell.use)

    @property
    def memory(self) -> int:
        return sum(cell.gpu.memory for cell in self.cells)

    @property
    def indexes(self) -> str:
        """Return which ones: `0–3`, or `0, 2`."""
        found = [cell.gpu.index for cell in self.cells]
        if len(found) > 2 and found[-1] - found[0] == len(found) - 1:
            return f"{found[0]}–{found[-1]}"
        return ", ".join(map(str, found))


@dataclass(frozen=True)
class MachineRow:
    """A machine with its GPUs and its jobs; each job comes with its user."""

    view: RunnerView
    groups: list[GpuGroup]
    jobs: list[tuple[Job, str]]

    @property
    def cells(self) -> list[GpuCell]:
        return [cell for group in self.groups for cell in group.cells]

    @property
    def without_gpus(self) -> list[tuple[Job, str]]:
        """The jobs that hold no GPU."""
        return [(job, user) for job, user in self.jobs if not job.gpus]


@dataclass
class RunnerBoard:
    """The machines as they were last seen. A page never waits for one; it only has them looked at."""

    engine: Engine
    service: RunnerService
    looked: float = -math.inf
    looking: set[asyncio.Task[Any]] = field(default_factory=set)

    def views(self) -> list[RunnerView]:
        """Return all runners but the hidden one of `--local`."""
        self.look()
        runners = self.engine.store.runners.all()
        return self.engine.context.fleet.views(runner for runner in runners if not runner.hidden)

    def look(self) -> None:
        """Have the machines sampled in the background, unless that happened a moment ago."""
        if time.monotonic() - self.looked < FRESH:
            return
        self.looked = time.monotonic()
        self.engine.context.tasks.start(
            "usage for the web page", lambda: self.service.metrics.look_at_all(fresh=FRESH), once=True
        )

    def rows(self) -> list[MachineRow]:
        """Return the machines, those that need attention first."""
        jobs: dict[str, list[Job]] = {}
        for job in self.engine.store.jobs.unfinished():
            jobs.setdefault(job.runner or "", []).append(job)
        rows = [self.row(view, jobs.get(view.name, [])) for view in self.views()]
        return sorted(rows, key=lambda row: row.view.state not in ("unreachable", "unusable"))

    def row(self, view: RunnerView, jobs: Sequence[Job]) -> MachineRow:
        users = [(job, self.engine.scheduler.queue.run(job.run).user) for job in jobs]
        facts = self.engine.store.runners.require(view.name).facts
        return MachineRow(
            view, groups([cell(gpu, view, users, facts.used if facts else {}) for gpu in view.gpus]), users
        )


def groups(cells: Sequence[GpuCell]) -> list[GpuGroup]:
    """Return GPUs by what they do: jobs first, then what is used or broken, then what is free."""
    found: dict[tuple[str, str], list[GpuCell]] = {}
    for one in cells:
        found.setdefault((one.state, one.job.id if one.job else one.note), []).append(one)
    return [GpuGroup(found[name]) for name in sorted(found, key=lambda name: ORDER.index(name[0]))]


def cell(gpu: Gpu, view: RunnerView, jobs: Sequence[tuple[Job, str]], foreign: dict[int, str]) -> GpuCell:
    """Return what one GPU does."""
    use = next((use for use in view.use.gpus if use.index == gpu.index), None) if view.use else None
    holder = next(((job, user) for job, user in jobs if gpu.index in job.gpus), None)
    if holder:
        return GpuCell(gpu, "used", *holder, use)
    if gpu.trouble:
        return GpuCell(gpu, "broken", use=use, note=gpu.trouble)
    if gpu.index in foreign:
        return GpuCell(gpu, "foreign", use=use, note=f"used outside of dstack {foreign[gpu.index]}".strip())
    return GpuCell(gpu, "free", use=use)


@dataclass
class NowPage:
    machines: RunnerBoard

    def now(self) -> dict[str, Any]:
        engine = self.machines.engine
        rows = self.machines.rows()
        unfinished = engine.store.jobs.unfinished()
        queued = [job for job in unfinished if job.status is Status.QUEUED]
        positions = engine.scheduler.positions
        queued.sort(key=lambda job: positions.get(job.id, math.inf))
        shown = {row.view.name for row in rows}
        gpus = [cell for row in rows if row.view.state == "ready" for cell in row.cells]
        troubles = engine.context.tasks.current()
        return {
            "machines": rows,
            "queue": [(engine.context.told(job), self.user(job), positions.get(job.id)) for job in queued[:QUEUED]],
            "queued": len(queued),
            "loose": [(job, self.user(job)) for job in unfinished if homeless(job, shown)],
            "ended": self.ended(),
            "running": len(unfinished) - len(queued),
            "gpus_free": sum(cell.state == "free" for cell in gpus),
            "gpus": len(gpus),
            "attention": sum(row.view.state in ("unreachable", "unusable") for row in rows),
            "troubles": [(name, trouble.words) for name, trouble in troubles.items()],
        }

    def user(self, job: Job) -> str:
        return self.machines.engine.scheduler.queue.run(job.run).user

    def ended(self) -> list[RunView]:
        """Return the runs that ended last."""
        store = self.machines.engine.store
        found = (store.runs.get(name) for name in store.events.ended_last(ENDED))
        runs = [run for run in found if run is not None]
        jobs = store.jobs.of_all([run.name for run in runs])
        views = [run_view(run, jobs.get(run.name, [])) for run in runs]
        return [view for view in views if view.finished_at]


def homeless(job: Job, shown: Collection[str]) -> bool:
    """Whether a job runs on a machine that is not `shown`, as with `--local`."""
    return job.runner is not None and job.status is not Status.QUEUED and job.runner not in shown
