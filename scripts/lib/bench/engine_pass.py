"""A whole pass of the server over its queue, with all that it reads and stores."""

from __future__ import annotations

import time
from pathlib import Path

from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.runners import Condition, Fleet
from dstack.hosts.pool import Pool
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Resources, Variables, Workflow
from dstack.model.runner.runner import Address, Facts, Gpu, Runner
from dstack.store.store import Store

RUNNERS, QUEUED = 1000, 10_000
NOW = "2026-01-01T00:00:00.000Z"


def fill(store: Store) -> None:
    """Add runners whose GPUs are all in use, and a queue."""
    gpus = tuple(Gpu(index=index, name="A100", memory=40 << 30) for index in range(8))
    facts = Facts(machine="m", cpus=64, memory=512 << 30, disk_free=10**13, gpus=gpus)
    for number in range(RUNNERS):
        store.runners.add(Runner(name=f"lab{number}", address=Address(host="h"), facts=facts))
        for half in (0, 1):
            taken = tuple(range(4 * half, 4 * half + 4))
            add(store, f"r{number}x{half}", 4, status=Status.RUNNING, runner=f"lab{number}", gpus=taken, started_at=NOW)
    for number in range(QUEUED):
        add(store, f"q{number}", (1, 2, 4, 8)[number % 4], priority=number % 3)


def add(store: Store, name: str, gpu: int, **fields: object) -> None:
    """Add a run with one job."""
    snapshot = Snapshot(repo=f"repo{hash(name) % 20}", tree=f"tree{hash(name) % 500}")
    user = f"user{hash(name) % 50}"
    store.runs.add(Run(name=name, workflow="w", user=user, submitted_at=NOW, snapshot=snapshot, variables={}))
    workflow = Workflow(name="w", image="i", commands=("python train.py",) * 5, resources=Resources(gpu=gpu))
    variables = Variables({}, {f"variable{number}": "value" for number in range(10)})
    basic = {"variables": variables, "image": "i", "key": name, "why": "", "submitted_at": NOW}
    store.jobs.add(Job(id=f"{name}j", run=name, workflow="w", definition=workflow, **basic, **fields))  # type: ignore[arg-type]


class Pass:
    """A server with a queue that can't move: each pass looks at all of it."""

    def __init__(self, home: Path) -> None:
        layout = ServerLayout(home)
        self.store = Store(layout)
        with self.store.database.transaction():
            fill(self.store)
        fleet = Fleet(self.store, Pool(), lambda: None)
        fleet.conditions = {runner.name: Condition("ready") for runner in self.store.runners.all()}
        self.engine = Engine(Context(layout=layout, store=self.store, fleet=fleet, events=Events()))
        for _ in range(QUEUED // 1000):  # the reasons of all jobs are recorded in the first passes
            self.milliseconds()

    def milliseconds(self) -> float:
        """Return the processor time of a pass."""
        start = time.process_time()
        self.engine.scheduler.run()
        return (time.process_time() - start) * 1000
