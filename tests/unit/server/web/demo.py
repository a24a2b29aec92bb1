"""A team's day in a store: machines with GPUs, runs in every state, logs, usage. Always the same."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace

from dstack.engine.fleet.condition import Condition
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Phase, Status
from dstack.model.metrics.series import Series
from dstack.model.metrics.state import ReaderState
from dstack.model.project.workflow import DependsOn, Interval, MetricGoal, Variables, Workflow
from dstack.model.runner.metrics import GpuUse, Point, Use
from dstack.model.runner.runner import Address, Facts, Finding, Gpu, Runner
from dstack.model.sweep.plan import SweepPlan
from dstack.model.sweep.status import SweepMethod, SweepStatus
from dstack.model.sweep.sweep import Sweep, Trial
from dstack.model.text.units import rfc3339
from tests.unit.engine.submission.test_plan import SUBMISSION
from tests.unit.server.world import JOB, World

GB = 1024**3
MINUTE = 60.0
PREPARE = Workflow(name="prepare", image="python:3.12", commands=("python prepare.py",), artifacts=("data",))
TRAIN = Workflow(
    name="train",
    image="pytorch/pytorch:2.4",
    commands=("pip install -r requirements.txt", "python train.py $config_args"),
    depends_on=DependsOn(workflows=("prepare",)),
    artifacts=("checkpoint", "samples"),
)
EVALUATE = replace(TRAIN, name="evaluate", commands=("python evaluate.py",), depends_on=DependsOn(workflows=("train",)))
LOG = (
    b"Collecting torch==2.4.0\n  \x1b[2mDownloading torch-2.4.0-cp312-cp312-manylinux.whl (797.3 MB)\x1b[0m\n"
    b"\r   10%|#         | 80/797 MB\r   55%|#####     | 438/797 MB\r  100%|##########| 797/797 MB\n"
    b"\x1b[32mSuccessfully installed torch-2.4.0\x1b[0m\n\x1b[33mWARNING: running as root\x1b[0m\n"
    b"\x1b[1mepoch\x1b[0m  step   loss    lr        tokens/s\n"
)


def machine(name: str, gpus: int, model: str = "A100", memory: int = 40, **different: Any) -> Runner:
    found = tuple(Gpu(index=at, name=f"NVIDIA {model}", memory=memory * GB, driver="550.54") for at in range(gpus))
    facts = Facts(
        machine=f"id-{name}",
        cpus=64,
        memory=512 * GB,
        disk_free=1_800_000_000_000,
        disk_total=3_800_000_000_000,
        gpus=found,
        docker="27.1",
        git="2.43",
        kernel="6.8.0-40-generic",
        user="ml",
        **different,
    )
    return Runner(name=name, address=Address(host=f"{name}.lab", user="ml"), labels=("a100",), facts=facts)


def fill(world: World) -> None:
    """Write the day into the world's store."""
    world.store.jobs.remove(JOB)
    world.store.runs.remove("known")
    now = time.time()
    with moment(world, now - 9 * 86400):
        for runner in machines():
            world.store.runners.add(runner)
    conditions(world)
    sweep(world, now - 4000 * MINUTE)
    names = iter(names_of())
    for minutes, user, rate, status in HISTORY:
        add_run(world, next(names), user, rate, status, now - minutes * MINUTE)
    usage(world)


@contextmanager
def moment(world: World, at: float) -> Iterator[None]:
    """Let what happens inside have happened at a time, in seconds since the epoch."""
    before = world.store.events.last
    yield
    world.store.database.execute("UPDATE events SET time = ? WHERE id > ?", (rfc3339(at), before))


def machines() -> list[Runner]:
    broken = Gpu(index=1, name="NVIDIA V100", memory=16 * GB, trouble="fell off the bus")
    old = machine("old-v100", 2, "V100", 16, used={0: "by gdm (1201)"})
    assert old.facts is not None
    old = replace(old, facts=replace(old.facts, gpus=(old.facts.gpus[0], broken)))
    return [
        machine("dgx-1", 8, "A100", 80),
        machine("dgx-2", 8, "A100", 80),
        machine("lab-a100", 4),
        old,
        replace(machine("cpu-1", 0), labels=("cpu",)),
        replace(machine("attic", 2, "T4", 16), drained="new power supply on Friday"),
        machine("lab-h100", 2, "H100", 80),
    ]


def conditions(world: World, *, troubled: bool = True) -> None:
    """Let each machine have been probed a moment ago; `troubled`: some with findings."""
    fleet = world.engine.context.fleet
    for runner in world.store.runners.all():
        fleet.conditions[runner.name] = Condition("ready", latency=0.0042, checked=time.monotonic())
    if not troubled:
        return
    since = rfc3339(time.time() - 8 * MINUTE)
    fleet.conditions["lab-h100"] = Condition("unreachable", f"no answer since {since}", "check its network")
    skew = Finding(
        "clock",
        "the clock is 7 minutes behind",
        "Times of logs and artifacts are wrong.",
        "sudo timedatectl set-ntp true",
    )
    toolkit = Finding(
        "gpu-toolkit",
        "containers can't use the GPUs",
        "Docker has no NVIDIA runtime.",
        "sudo apt-get install nvidia-container-toolkit",
    )
    fleet.conditions["old-v100"].findings = (skew, toolkit)
    fleet.use = use_of


def use_of(name: str) -> Use | None:
    """What each machine does now."""
    busy = random.Random(name)
    if name == "lab-h100":
        return None
    gpus = {"dgx-1": 6, "dgx-2": 8, "lab-a100": 1, "old-v100": 1}.get(name, 0)
    return Use(
        cpu=round(busy.uniform(5, 95), 1),
        memory_used=busy.randrange(40, 400) * GB,
        gpus=tuple(
            GpuUse(index=at, percent=busy.randrange(55, 100), memory_used=busy.randrange(8, 15) * GB)
            for at in range(gpus)
        ),
    )


HISTORY = [
    (3000, "bob", "0.1", Status.DONE),
    (2400, "ann", "0.03", Status.DONE),
    (1800, "ann", "0.01", Status.FAILED),
    (1500, "cy", "0.003", Status.DONE),
    (900, "bob", "0.001", Status.STOPPED),
    (700, "ann", "0.0003", Status.LOST),
    (420, "cy", "0.0001", Status.DONE),
    (180, "ann", "0.02", Status.RUNNING),
    (120, "bob", "0.002", Status.RUNNING),
    (95, "cy", "0.0002", Status.RUNNING),
    (30, "ann", "0.00002", Status.UPLOADING),
    (12, "bob", "0.5", Status.PREPARING),
    (8, "cy", "0.6", Status.QUEUED),
    (4, "ann", "0.7", Status.QUEUED),
]
CODES = {Status.DONE: 0, Status.FAILED: 1, Status.STOPPED: 143, Status.LOST: 125}
REASONS = {
    Status.FAILED: Reason(ReasonCode.EXIT_CODE, "the commands failed with exit code 1: CUDA out of memory"),
    Status.LOST: Reason(ReasonCode.LOST_HOST_RESTARTED, "dgx-2 restarted while the job was running"),
    Status.STOPPED: Reason(ReasonCode.STOPPED_BY_USER, "stopped by bob"),
}
PLACES = [("dgx-1", (0, 1, 2, 3)), ("dgx-1", (4, 5)), ("dgx-2", tuple(range(8))), ("lab-a100", (0,)), ("cpu-1", ())]


def names_of() -> list[str]:
    firsts = ("brave", "calm", "eager", "fancy", "gentle", "happy", "jolly", "kind", "lively", "merry", "nice", "proud")
    seconds = ("otter", "fox", "heron", "lynx", "panda", "raven", "seal", "tapir", "urchin", "viper", "walrus", "yak")
    return [f"{firsts[at % 12]}-{seconds[(at * 5 + 1) % 12]}-{at + 1}" for at in range(40)]


def add_run(world: World, name: str, user: str, rate: str, status: Status, at: float) -> None:
    """Submit a run of three jobs, whose first one is cached, and bring it to this status."""
    variables = Variables(shared={"model": "124M"}, own={"learning_rate": rate, "batch": "32", "amp": "True"})
    commit = f"{hash_of(rate):040x}"[:40]
    snapshot = Snapshot(
        repo="r", tree=commit, commit=commit, branch="main", dirty=user == "ann", url="https://example.org/lab/gpt.git"
    )
    run = Run(
        name=name,
        workflow="train",
        user=user,
        submitted_at=rfc3339(at),
        snapshot=snapshot,
        variables={**variables.all},
        workflows=(PREPARE, TRAIN),
        inputs={"train": variables},
    )
    with moment(world, at):
        world.store.runs.add(run)
    digest = f"sha256:{hash_of('image'):064x}"
    base = {"run": name, "variables": variables, "submitted_at": rfc3339(at), "key": rate}
    first = Job(
        id=id_of(name, 0),
        workflow="prepare",
        definition=PREPARE,
        image=PREPARE.image,
        why="",
        **base,  # type: ignore[arg-type]
    )
    cached = {"cached_from": first.id, "why": "the same job ran in brave-fox-1"}
    with moment(world, at):
        world.store.jobs.add(first)
        world.store.jobs.change(first.id, status=Status.DONE, exit_code=0, finished_at=rfc3339(at), **cached)
    why = "learning_rate changed from 0.1"
    job = Job(id=id_of(name, 1), workflow="train", definition=TRAIN, image=TRAIN.image, why=why, **base)  # type: ignore[arg-type]
    with moment(world, at):
        world.store.jobs.add(job)
    bring(world, replace(job, image_digest=digest), status, at)


def bring(world: World, job: Job, status: Status, at: float) -> None:
    """Take a job through its life up to a status."""
    if status is Status.QUEUED:
        reason = Reason(ReasonCode.RUNNER_BUSY, "dgx-1 has 2 free GPUs, and it asks for 4; 5 others are busier")
        world.store.jobs.change(job.id, reason=reason)
        world.engine.scheduler.positions[job.id] = len(world.engine.scheduler.positions) + 1
        return
    live = len([each for each in world.store.jobs.unfinished() if each.runner])
    runner, gpus = PLACES[live % len(PLACES)]
    steps: list[tuple[float, dict[str, Any]]] = [
        (40, {"status": Status.PREPARING, "runner": runner, "gpus": gpus, "placed_at": rfc3339(at + 40)}),
        (52, {"preparation": Phase.PULLING, "image_digest": job.image_digest}),
        (220, {"status": Status.RUNNING, "started_at": rfc3339(at + 220)}),
        (1400, {"status": Status.UPLOADING}),
        (1500, {"status": status, "exit_code": CODES.get(status), "finished_at": rfc3339(at + 1500), "files": 12}),
    ]
    lasts = {Status.PREPARING: 2, Status.RUNNING: 3, Status.UPLOADING: 4}.get(status, 5)
    if status in REASONS:
        steps[-1][1]["reason"] = REASONS[status]
    for after, changes in steps[:lasts]:
        with moment(world, at + after):
            world.store.jobs.change(job.id, **changes)
    if lasts > 2:
        log(world, job.id, 160)
        world.store.metrics.save(job, ReaderState(position=0), metrics(job))


def log(world: World, job_id: str, steps: int) -> None:
    """Write a training's log."""
    rows = (
        f"{step // 50:5d}  {step:4d}   {4 * math.exp(-step / 90) + 1.9:.3f}   3.0e-04  {41000 + 37 * step % 900}\n"
        for step in range(steps)
    )
    world.store.logs.append(job_id, LOG + "".join(rows).encode())


def sweep(world: World, at: float) -> None:
    """Record a sweep that has ended, with six trials."""
    plan = SweepPlan(
        method=SweepMethod.GRID,
        params={"learning_rate": Interval(min="1e-5", max="1", scale="log"), "batch": ("16", "32")},
        seed=1,
        max_runs=6,
        metric=MetricGoal(name="val_loss", goal="minimize"),
    )
    made = Sweep(name="lr", workflow="train", user="cy", plan=plan, submitted_at=rfc3339(at), status=SweepStatus.DONE)
    with moment(world, at):
        world.store.sweeps.add(made, SUBMISSION)
    for number in range(1, 7):
        values = {"learning_rate": f"1e-{number}", "batch": "32" if number % 2 else "16"}
        trial = Trial(sweep="lr", number=number, values=values)
        add_run(world, trial.run, "cy", values["learning_rate"], Status.DONE, at + number * MINUTE)
        with moment(world, at + number * MINUTE):
            world.store.sweeps.add_trial(trial)
            value = 3.0 + abs(number - 3.4) / 4
            world.store.sweeps.change_trial(
                trial, "sweep.trial-ended", status=Status.DONE, value=round(value, 3), exit_code=0
            )


def metrics(job: Job) -> dict[str, Series]:
    """Return what was read from a training's log."""
    noise, rate = random.Random(job.id), float(job.variables.all["learning_rate"] or 0)
    made = {"loss": Series(), "val_loss": Series()}
    for step in range(160):
        value = 4 * math.exp(-step / (60 + 40 * abs(math.log10(rate)))) + 1.9
        made["loss"].add(step * 50, 0.0, round(value + noise.uniform(-0.08, 0.08), 3))
        if step % 10 == 9:
            made["val_loss"].add(step * 50, 0.0, round(value + 0.12, 3))
    return made


def usage(world: World) -> None:
    """Write what the running jobs used."""
    for job in world.store.jobs.unfinished():
        if job.status is not Status.RUNNING:
            continue
        wave = random.Random(job.id)
        for step in range(240):
            busy = 70 + 22 * math.sin(step / 9) + wave.uniform(-5, 5)
            point = Point(
                time=int(time.time()) - 10 * (240 - step),
                cpu=round(6 + 3 * math.sin(step / 14) + wave.random(), 2),
                memory=int((24 + step / 40) * GB),
                gpu=round(min(busy, 100), 1),
                gpu_memory=int(61 * GB),
            )
            world.store.logs.add_usage(job.id, point)


def hash_of(text: str) -> int:
    return random.Random(text).getrandbits(160)


def id_of(run: str, number: int) -> str:
    return f"{random.Random(f'{run} {number}').getrandbits(48):012x}"
