"""Makes the state of a server with very many runs."""

from __future__ import annotations

import time
from pathlib import Path

from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.text.units import rfc3339
from dstack.store.store import Store

ENDS = (Status.DONE, Status.DONE, Status.FAILED, Status.STOPPED)
KEPT = 100_000
"""How many events a server keeps."""


def make(home: Path, runs: int) -> None:
    """Write a state with this many runs of twenty workflows in five repositories, a minute apart. One is lost."""
    store = Store(ServerLayout(home))
    began = time.time() - runs * 60
    with store.database.transaction():
        for number in range(runs):
            add(store, number, began + number * 60)
        store.database.execute("DELETE FROM events WHERE id <= (SELECT max(id) - ? FROM events)", (KEPT,))
    store.close()


def add(store: Store, number: int, at: float) -> None:
    """Record a run with one job that ended."""
    name, workflow, values = f"run-{number}", f"train{number % 20}", {f"value{index}": "1" for index in range(5)}
    definition = Workflow(name=workflow, image="i", commands=("python train.py",) * 3)
    snapshot = Snapshot(repo=f"repo{number % 5}", tree=f"{number % 500:040x}")
    store.runs.add(
        Run(
            name=name,
            workflow=workflow,
            user=f"user{number % 9}",
            submitted_at=rfc3339(at),
            snapshot=snapshot,
            variables=dict(values),
        )
    )
    status = ENDS[number % 4] if number else Status.LOST
    store.jobs.add(
        Job(
            id=f"{number:012x}",
            run=name,
            workflow=workflow,
            definition=definition,
            variables=Variables({}, dict(values)),
            image="i",
            key=f"{number:064x}",
            why="",
            submitted_at=rfc3339(at),
            finished_at=rfc3339(at + 30),
            status=status,
            exit_code=0 if status is Status.DONE else 1,
            runner="lab1",
            discarded=True,
            files=1,
            bytes=1000,
        )
    )
