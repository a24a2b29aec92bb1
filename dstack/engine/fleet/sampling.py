"""Samples machines: what they are doing now, and what their jobs use over time."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from dataclasses import dataclass, field
from functools import partial

from dstack.commands.host import ask
from dstack.commands.machine.sample import Sample, sample
from dstack.engine.context import log
from dstack.engine.fleet.foreign_load import at_rest, counted, foreign, smoothed
from dstack.engine.fleet.runners import LATE, Fleet
from dstack.engine.fleet.watch import SAMPLING, pause
from dstack.errors import DstackError
from dstack.model.job.job import Job
from dstack.model.job.status import Status
from dstack.model.paths import attempt_id
from dstack.model.runner.metrics import Point, Use
from dstack.model.runner.runner import Runner
from dstack.scheduling.types import IDLE, Load
from dstack.store.store import Store

INTERVAL = 10.0
"""Seconds between two samples of a machine that runs jobs; a new job is sampled more often at first."""
FIRST = 1.0
TIMEOUT = 30.0
KEPT = 720
"""How many samples of a machine are kept in memory, to show what it did lately."""
REMEMBERED = 120.0
"""Seconds after a machine's last sample for which its load average may still include jobs that have ended."""


@dataclass
class Seen:
    """The last two samples of a machine. `at` is in monotonic seconds. `cost` is the total cost of all `count` samples
    in CPU seconds: a single one is too cheap to measure, because the machine counts in hundredths of a second."""

    last: Sample
    at: float
    before: Sample | None = None
    cost: float = 0.0
    count: int = 0

    @property
    def pause(self) -> float:
        """Seconds between two samples that keep their cost within the share."""
        return pause(self.cost / self.count, self.last.cpus, SAMPLING)


@dataclass
class Sampler:
    """Samples the machines that run jobs, and any machine that somebody looks at. `history` has the newest samples of
    each, with their times in seconds since the epoch."""

    store: Store
    fleet: Fleet
    seen: dict[str, Seen] = field(default_factory=dict)
    watching: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    looking: dict[str, asyncio.Task[bool]] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    history: dict[str, deque[tuple[int, Use]]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT)))

    async def watch(self) -> None:
        """Keep one watcher for each machine that runs jobs."""
        try:
            while True:
                for name in {job.runner for job in self.running() if job.runner} - set(self.watching):
                    self.watching[name] = asyncio.create_task(
                        self.fleet.tasks.keep(f"metrics of {name}", partial(self.follow, name))
                    )
                self.watching = {name: task for name, task in self.watching.items() if not task.done()}
                await asyncio.sleep(FIRST / 2)
        finally:
            for task in self.watching.values():
                task.cancel()

    def running(self, name: str | None = None) -> list[Job]:
        """The jobs that run now, on this machine or on any."""
        jobs = [job for job in self.store.jobs.unfinished() if job.status is Status.RUNNING]
        return [job for job in jobs if name is None or job.runner == name]

    async def follow(self, name: str) -> None:
        """Sample a machine for as long as it runs jobs: often for a new job, then less and less."""
        rest, known = FIRST, frozenset[str]()
        while jobs := self.running(name):
            if fresh := frozenset(job.id for job in jobs) - known:
                rest, known = FIRST, known | fresh
            sampled = await self.look(name)
            if sampled:
                self.record(name, jobs)
            rest = min(rest * 1.3, INTERVAL) if sampled else INTERVAL
            seen = self.seen.get(name)
            await asyncio.sleep(max(rest, seen.pause if seen else 0.0))

    async def look(self, name: str) -> bool:
        """Sample a machine; return whether that succeeded."""
        try:
            runner = self.store.runners.require(name)
            cpus = runner.facts.cpus if runner.facts else 0
            command = sample(self.fleet.host_context(runner), self.containers(runner), cpus)
            taken = await ask(self.fleet.host(runner), command, timeout=TIMEOUT)
        except DstackError as trouble:
            log.info("%s: sampling failed: %s", name, trouble.message)
            return False
        before = self.seen.get(name)
        cost, count = (before.cost, before.count) if before else (0.0, 0)
        if before:
            alike = self.fleet.alike(name)
            ours = [attempt_id(job.id, job.attempt) for job in self.store.jobs.unfinished() if job.runner in alike]
            passed = taken.uptime - before.last.uptime
            self.loads[name] = smoothed(self.known_load(runner), foreign(before.last, taken, ours), passed)
        self.seen[name] = Seen(taken, time.monotonic(), before.last if before else None, cost + taken.cost, count + 1)
        if use := self.use(name):
            self.history[name].append((round(time.time()), use))
        return True

    def containers(self, runner: Runner) -> dict[str, str] | None:
        """The containers of a runner's jobs, if all are known and no GPU has to be checked; else None, which means all
        containers on the machine: they tell which of them computes on a GPU."""
        known = self.seen[runner.name].last.containers if runner.name in self.seen else {}
        alike = self.fleet.alike(runner.name)
        attempts = {attempt_id(job.id, job.attempt) for job in self.running() if job.runner in alike}
        if (runner.facts and runner.facts.gpus) or not attempts <= set(known):
            return None
        return {attempt: known[attempt] for attempt in attempts}

    async def look_at_all(self, *, fresh: float) -> None:
        """Sample every machine that answers and whose last sample is older than `fresh` seconds. A machine that stops
        answering delays nobody; its sample continues in the background."""
        now, begun = time.monotonic(), []
        self.looking = {name: task for name, task in self.looking.items() if not task.done()}
        for runner in self.store.runners.all():
            if not self.fleet.ready(runner.name) or runner.name in self.looking:
                continue
            if (seen := self.seen.get(runner.name)) is None or now - seen.at > max(fresh, seen.pause):
                look = self.fleet.tasks.attempt(f"metrics of {runner.name}", partial(self.look, runner.name))
                begun.append(asyncio.create_task(look))
                self.looking[runner.name] = begun[-1]
        if begun:
            await asyncio.wait(begun, timeout=LATE)

    def record(self, name: str, jobs: list[Job]) -> None:
        """Store what each job used since the previous sample."""
        seen = self.seen[name]
        if seen.before is None:
            return
        for job in jobs:
            attempt = attempt_id(job.id, job.attempt)
            if attempt not in seen.last.jobs or attempt not in seen.before.jobs:
                continue
            seconds = max(seen.last.uptime - seen.before.uptime, 0.01)
            used, memory = seen.last.jobs[attempt]
            gpus = [gpu for gpu in seen.last.gpus if gpu.index in job.gpus]
            point = Point(
                time=round(time.time()),
                cpu=round(max(used - seen.before.jobs[attempt][0], 0.0) / seconds, 2),
                memory=memory,
                gpu=sum(gpu.percent or 0 for gpu in gpus) / len(gpus) if gpus else None,
                gpu_memory=sum(gpu.memory_used for gpu in gpus) if gpus else None,
            )
            self.store.logs.add_usage(job.id, point)

    def load(self, runner: Runner) -> Load:
        """What is used on a machine outside dstack."""
        return counted(self.known_load(runner), runner.facts) if runner.facts else IDLE

    def known_load(self, runner: Runner) -> Load:
        """The load as measured during dstack's jobs and a while after them; otherwise as the kernel reports it."""
        seen = self.seen.get(runner.name)
        recent = seen is not None and time.monotonic() - seen.at < REMEMBERED
        if runner.name in self.loads and (recent or self.running(runner.name)):
            return self.loads[runner.name]
        return at_rest(runner.facts) if runner.facts else IDLE

    def use(self, name: str) -> Use | None:
        """What a machine was doing when it was last sampled."""
        seen = self.seen.get(name)
        if seen is None:
            return None
        cpu = None
        if seen.before and seen.last.all > seen.before.all:
            cpu = round(100 * (seen.last.busy - seen.before.busy) / (seen.last.all - seen.before.all), 1)
        return Use(cpu=cpu, memory_used=seen.last.memory_used, gpus=seen.last.gpus)
