"""Every reason for which a job waits, as the real code words it: tests/golden/pending-reasons.txt.

After a change: UPDATE_GOLDEN=1 pytest tests/unit/scheduling/test_pending.py, and read the diff.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.condition import Condition
from dstack.engine.fleet.runners import Fleet
from dstack.hosts.pool import Pool
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Attempt, Job, Run
from dstack.model.job.reasons import Reason, ReasonCode, preempted
from dstack.model.job.resources import Ask
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Variables, Workflow
from dstack.model.runner.runner import Address, Facts, Runner
from dstack.scheduling.reasons import UNCHECKED, not_ready
from dstack.scheduling.schedule import schedule
from dstack.scheduling.types import Lease, Load, Machine, Waiting
from dstack.store.store import Store
from tests.unit.scheduling.test_schedule import A100, GB, HOUR, lease, machine, shared, wants

GOLDEN = Path(__file__).parents[2] / "golden" / "pending-reasons.txt"
NOW = "2026-01-01T00:00:00.000Z"

LAB2 = machine("lab2", kinds=[A100, A100])
ANN = lease("lab2", 0)
BIG = wants("big", 4, run="big-bear-1", user="bob")

NO_GPUS = Reason(ReasonCode.NO_CONTAINER_TOOLKIT, "containers don't get its GPUs")

Case = tuple[Waiting, list[Machine], list[Lease]]
QUEUED: dict[str, Case] = {
    "no runner": (wants("a"), [], []),
    "a pin that nobody has": (wants("a", pin="x"), [LAB2], []),
    "runners that nobody is": (wants("a", runners=("x", "y")), [LAB2], []),
    "a pin and runners": (wants("a", pin="fast", runners=("x",)), [machine("lab", labels=("fast",))], []),
    "a mount that nobody allows": (wants("a", mounts=("/data",)), [LAB2], []),
    "a mount that others allow": (wants("a", mounts=("/data/x", "/y")), [machine("lab", allow_mounts=("/data",))], []),
    "too many GPUs": (wants("a", 3), [LAB2], []),
    "no such GPU": (wants("a", 2, gpu_name="H100", gpu_memory=80 * GB), [LAB2], []),
    "no GPU of the vendor": (Waiting("a", Ask(1, gpu_vendor="amd")), [LAB2], []),
    "only GPUs of another vendor": (
        wants("a", 1),
        [machine("lab", kinds=[{"name": "AMD Instinct MI210", "vendor": "amd", "node": "renderD128"}])],
        [],
    ),
    "too many CPUs": (wants("a", cpu=9), [machine("lab")], []),
    "too much memory": (wants("a", memory=90 * GB), [machine("lab")], []),
    "none without resources": (wants("a"), [machine("lab", max_jobs=0)], []),
    "a machine that is away": (wants("a"), [machine("lab", trouble=not_ready("unreachable", "no route to host"))], []),
    "a machine that is drained": (wants("a"), [machine("lab", trouble=not_ready("drained", "disk swap"))], []),
    "a machine that was never seen": (
        wants("a", 1),
        [Machine(Runner(name="lab", address=Address(host="lab")), UNCHECKED)],
        [],
    ),
    "GPUs that others have": (wants("a", 2, gpu_memory=40 * GB), [LAB2], [ANN]),
    "GPUs that many have": (
        wants("a", 4),
        [machine("lab", 8)],
        [lease("lab", index, run=f"run-{index}", since=index * 60.0) for index in range(5)],
    ),
    "GPUs of many machines": (
        wants("a", 1),
        [machine(name, 1) for name in "vwxyz"],
        [lease(name, 0, run=f"{name}-1") for name in "vwxyz"],
    ),
    "GPUs that are used outside": (
        wants("a", 2),
        [machine("lab", 2, foreign={1: "by bob (python3, process 42)"})],
        [],
    ),
    "GPUs that Docker does not give": (
        wants("a", 1),
        [replace(machine("lab", 1), gpu_trouble=NO_GPUS)],
        [],
    ),
    "CPUs": (wants("a", cpu=4), [machine("lab")], [lease("lab", ask=Ask(cpu=6))]),
    "CPUs that others use": (wants("a", cpu=4), [replace(machine("lab"), load=Load(cpu=5))], []),
    "memory": (
        wants("a", memory=40 * GB),
        [machine("lab")],
        [lease("lab", ask=Ask(memory=40 * GB)), lease("lab", run="r", ask=Ask(memory=4 * GB))],
    ),
    "memory that others use": (wants("a", memory=40 * GB), [replace(machine("lab"), load=Load(memory=30 * GB))], []),
    "disk": (wants("a", disk=500 * 10**9), [machine("lab")], []),
    "slots": (wants("a"), [machine("lab", max_jobs=2)], shared("lab", 2)),
    "room that is made for it": (
        wants("a", 1, priority=1),
        [machine("lab", 1)],
        [lease("lab", 0, preemptible=True, ending=True)],
    ),
}


def queued() -> Iterator[tuple[str, Reason | None]]:
    for name, (job, machines, leases) in QUEUED.items():
        yield name, schedule([job], machines, leases, 2 * HOUR).reasons[job.id]
    small = wants("a", 1, submitted=1.0)
    yield "a share that is kept", schedule([BIG, small], [machine("lab", 4)], [lease("lab", 0)], HOUR).reasons["a"]
    mine = wants("a", 1, user="ann")
    yield "a user's limit", schedule([mine], [machine("lab", 4)], [lease("lab", 0, 1)], HOUR, max_gpus=2).reasons["a"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(ServerLayout(tmp_path))
    opened.runners.add(Runner(name="lab", address=Address(host="lab"), facts=Facts(machine="m", cpus=2), max_jobs=0))
    yield opened
    opened.close()


def add(store: Store, name: str, workflow: str, *, timeout: float | None = None, **fields: object) -> None:
    if store.runs.get(name) is None:
        snapshot = Snapshot(repo="r", tree="t")
        basic = {"workflow": workflow, "user": "ann", "submitted_at": NOW, "snapshot": snapshot, "variables": {}}
        store.runs.add(Run(name=name, timeout=timeout, **basic))  # type: ignore[arg-type]
    definition = Workflow(name=workflow, image="i", commands=("true",))
    basic = {"run": name, "workflow": workflow, "definition": definition, "variables": Variables(), "image": "i"}
    store.jobs.add(Job(id=f"{name}-{workflow}", key="k", why="", submitted_at=NOW, **basic, **fields))  # type: ignore[arg-type]


def told(store: Store, tmp_path: Path) -> Iterator[tuple[str, Reason | None]]:
    """Return the engine's own reasons: for jobs that the scheduler does not see, and what it adds to others."""
    machines = Fleet(store, Pool(), lambda: None)
    machines.conditions = {"lab": Condition("ready")}
    gave = Attempt(
        number=1,
        status=Status.STOPPED,
        exit_code=143,
        reason=preempted("bob's brave-otter-7"),
        runner="lab",
        gpus=(),
        started_at=NOW,
        finished_at=NOW,
        log_start=0,
        log_end=0,
        preempted=True,
    )
    add(store, "one", "prepare", status=Status.RUNNING, runner="lab")
    add(store, "one", "train", dependencies={"prepare": "one-prepare"})
    add(store, "two", "prepare", shares="one-prepare")
    add(store, "three", "train", held="bob")
    add(store, "four", "train", timeout=60.0)
    add(store, "five", "train", stop="stop")
    add(store, "six", "train", timeout=60.0, attempt=2, history=(gave,))
    engine = Engine(Context(layout=ServerLayout(tmp_path), store=store, fleet=machines, events=Events()))
    engine.scheduler.run()
    names = {
        "one-train": "a dependency",
        "two-prepare": "the same job elsewhere",
        "three-train": "held",
        "four-train": "not to wait longer",
        "five-train": "stopped before",
        "six-train": "gave way",
    }
    for job, name in names.items():
        yield name, store.jobs.require(job).reason


def test_every_reason(store: Store, tmp_path: Path) -> None:
    reasons = [(name, reason) for name, reason in [*queued(), *told(store, tmp_path)] if reason]
    text = "".join(f"{name}:\n    {reason.code}: {reason.text}\n" for name, reason in reasons)
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)

    assert text == GOLDEN.read_text(), "if this is meant: UPDATE_GOLDEN=1, and read the diff"
