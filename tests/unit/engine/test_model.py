"""The real engine on machines in memory, through random days: whatever users and machines do, no GPU is used twice at a
time, no attempt starts twice, and in the end everything has ended and nothing is leased."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dstack.commands.command import Command, Result
from dstack.engine.context import Context, Events
from dstack.engine.engine import Engine
from dstack.engine.fleet.condition import Condition
from dstack.engine.fleet.runners import Fleet
from dstack.errors import HostUnreachableError
from dstack.hosts.pool import Pool
from dstack.hosts.recording import RecordingHost, Reply
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.job import Job, Run
from dstack.model.job.status import Status
from dstack.model.paths import ServerLayout
from dstack.model.project.workflow import Resources, Retry, Variables, Workflow
from dstack.model.runner.runner import Address, Facts, Gpu, Runner
from dstack.store.store import Store
from tests.unit.commands.machine.test_probe import GOOD

ORIGIN = "boot=b1\ndocker=7:100\n"
SIZES = {"one": 2, "two": 4}
NOW = "2026-01-01T00:00:00.000Z"


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is ready. It uses no threads."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        timers = [each.when() for each in self._scheduled if not each.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self.now = max(self.now, min(timers))
        super()._run_once()  # type: ignore[misc]

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *arguments: Any) -> Any:
        future = self.create_future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


class Container:
    """A job's container: `code` is None while it runs, and `gone` says that somebody removed it."""

    def __init__(self, gpus: frozenset[str]) -> None:
        self.gpus = gpus
        self.code: int | None = None
        self.gone = False

    @property
    def runs(self) -> bool:
        return self.code is None and not self.gone


class Box:
    """Does what the host scripts do. It remembers what was started, also of discarded jobs."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.containers: dict[str, Container] = {}
        self.fenced: set[str] = set()
        self.begun: list[str] = []
        self.down = False
        self.host = RecordingHost(self.reply)

    def reply(self, command: Command[Any]) -> Reply:
        if self.down:
            return HostUnreachableError("no route to host")
        if command.name in ("probing the machine", "measuring the latency"):
            lines = [f"gpu={index}, A100, 40960, GPU-{index}" for index in range(self.gpus)]
            return "\n".join([*(f"{key}={value}" for key, value in GOOD.items()), *lines, ""])
        if command.name == "asking the runner to answer":
            return b""
        if command.name == "asking what is on the machine":
            lines = [f"container=dstack-{name} Up" for name, container in self.containers.items() if container.runs]
            return "\n".join([*lines, ""])
        attempt = re.findall(r"jobs/([a-z0-9-]+)", command.script)[0]
        answers: dict[str, Callable[[str, str], Reply]] = {
            "launching the job": self.launch,
            "observing the job": self.observe,
            "following the log": self.log,
            "reading the log": self.log,
            "stopping the job": self.stop,
            "removing the job's folder": self.discard,
        }
        return answers[command.name](attempt, command.script)

    def launch(self, attempt: str, script: str) -> Reply:
        if attempt in self.fenced:
            return "outcome=fenced\n"
        if attempt in self.containers:
            return f"outcome=exists\n{ORIGIN}digest=sha256:1\n"
        given = re.search(r"device=([0-9,]+)", script)
        self.containers[attempt] = Container(frozenset(given[1].split(",") if given else ()))
        self.begun.append(attempt)
        return f"outcome=started\n{ORIGIN}digest=sha256:1\n"

    def observe(self, attempt: str, script: str) -> Reply:
        found = self.containers.get(attempt)
        claim = "fenced" if attempt in self.fenced else "claimed" if found else "none"
        code = "" if found is None or found.code is None else str(found.code)
        container = '{"Status": "running"}' if found and found.runs else "none"
        return f"container={container}\nclaim={claim}\n{ORIGIN}log_size=0\nexit={code}\n"

    def log(self, attempt: str, script: str) -> Reply:
        return Result(0, b"", b"")

    def stop(self, attempt: str, script: str) -> Reply:
        found = self.containers.get(attempt)
        if found is None:
            self.fenced.add(attempt)
            return "outcome=fenced\n"
        if not found.runs:
            return "outcome=ended\n"
        found.code = 143
        return "outcome=stopping\n"

    def discard(self, attempt: str, script: str) -> Reply:
        self.containers.pop(attempt, None)
        return ""


class Day(RuleBasedStateMachine):
    """A day of a small team."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.layout = ServerLayout(Path(self.folder.name))
        self.loop = Loop()
        self.boxes = {name: Box(count) for name, count in SIZES.items()}
        self.store = Store(self.layout)
        for name, count in SIZES.items():
            gpus = tuple(Gpu(index=index) for index in range(count))
            facts = Facts(machine="m", cpus=8, gpus=gpus)
            self.store.runners.add(Runner(name=name, address=Address(host=name), facts=facts))
            self.store.known_objects.add(name, "repo", ["tree"])
        self.jobs: list[str] = []

    @initialize()
    def morning(self) -> None:
        self.open()

    def open(self) -> None:
        """Start a server: everything that it knows is in the store."""
        pool = Pool()
        pool.get = lambda runner: self.boxes[runner.name].host  # type: ignore[method-assign, assignment, return-value]
        machines = Fleet(self.store, pool, lambda: None)
        machines.conditions = {name: Condition("ready") for name in SIZES}
        context = Context(layout=self.layout, store=self.store, fleet=machines, events=Events())

        async def start() -> Engine:
            engine = Engine(context)
            for job in self.store.jobs.unfinished():
                if job.status is not Status.QUEUED:
                    engine.drive(job.id)
            return engine

        self.engine = self.loop.run_until_complete(start())

    def settle(self, seconds: float = 3.0) -> None:
        """Let this much time pass, with a pass over the queue before and after."""

        async def passing() -> None:
            for _ in range(2):
                for name in SIZES:
                    self.engine.context.fleet.conditions.setdefault(name, Condition("ready"))
                self.engine.scheduler.run()
                # The supervisor pauses by the real time, of which next to nothing passes here.
                self.engine.context.tasks.troubles.clear()
                self.engine.clean()
                await asyncio.sleep(seconds / 2)

        self.loop.run_until_complete(passing())

    @property
    def unfinished(self) -> list[Job]:
        return self.store.jobs.unfinished()

    @property
    def running(self) -> list[tuple[Box, str]]:
        return [(box, name) for box in self.boxes.values() for name, each in box.containers.items() if each.runs]

    @rule(
        gpus=st.integers(0, 4),
        priority=st.integers(0, 2),
        tries=st.integers(1, 3),
        pin=st.sampled_from([None, "two"]),
        preemptible=st.booleans(),
    )
    def submit(self, gpus: int, priority: int, tries: int, pin: str | None, preemptible: bool) -> None:
        name = f"run{len(self.jobs)}"
        snapshot = Snapshot(repo="repo", tree="tree")
        run = Run(name=name, workflow="job", user="ann", submitted_at=NOW, snapshot=snapshot, variables={}, pin=pin)
        definition = Workflow(
            name="job",
            image="busybox",
            commands=("true",),
            resources=Resources(gpu=gpus),
            retry=Retry(attempts=tries),
            priority=priority,
            preemptible=preemptible,
        )
        self.store.runs.add(run)
        self.store.jobs.add(
            Job(
                id=f"job{len(self.jobs)}x",
                run=name,
                workflow="job",
                definition=definition,
                variables=Variables(),
                image="busybox",
                key=name,
                why="",
                submitted_at=NOW,
                priority=priority,
            )
        )
        self.jobs.append(f"job{len(self.jobs)}x")
        self.settle()

    @rule(which=st.integers(0, 9), code=st.sampled_from([0, 0, 1]), gone=st.booleans())
    def end(self, which: int, code: int, gone: bool) -> None:
        """A container ends, or somebody removes it."""
        if self.running:
            box, name = self.running[which % len(self.running)]
            container = box.containers[name]
            container.gone, container.code = gone, None if gone else code
        self.settle()

    @rule(which=st.integers(0, 9), abort=st.booleans())
    def stop(self, which: int, abort: bool) -> None:
        if self.unfinished:
            job = self.unfinished[which % len(self.unfinished)]
            self.asked(lambda: self.engine.stop([job], abort=abort))
        self.settle()

    @rule(which=st.integers(0, 9), user=st.sampled_from(["ann", None]))
    def hold(self, which: int, user: str | None) -> None:
        if self.unfinished:
            self.engine.hold([self.unfinished[which % len(self.unfinished)]], user)
        self.settle()

    @rule(name=st.sampled_from(sorted(SIZES)), reason=st.sampled_from(["disk swap", None]))
    def drain(self, name: str, reason: str | None) -> None:
        self.store.runners.change(name, drained=reason)
        self.settle()

    @rule(name=st.sampled_from(sorted(SIZES)), down=st.booleans())
    def reach(self, name: str, down: bool) -> None:
        self.boxes[name].down = down
        self.settle()

    @rule(wait=st.sampled_from([0.0, 0.5, 40.0]))
    def restart(self, wait: float) -> None:
        """Kill the server, wherever its drives are, and start another one."""
        self.settle(wait)
        self.loop.run_until_complete(self.engine.close())
        self.open()
        self.settle()

    def asked(self, what: Callable[[], None]) -> None:
        async def inside() -> None:
            what()

        self.loop.run_until_complete(inside())

    @invariant()
    def no_gpu_is_used_twice(self) -> None:
        for name, box in self.boxes.items():
            used = [gpu for each in box.containers.values() if each.runs for gpu in each.gpus]
            assert len(used) == len(set(used)), (name, used)
            leased = [gpu for job in self.unfinished if job.runner == name for gpu in job.gpus]
            assert len(leased) == len(set(leased)), (name, leased)
            assert set(leased) <= set(range(SIZES[name]))

    @invariant()
    def no_attempt_begins_twice(self) -> None:
        begun = [attempt for box in self.boxes.values() for attempt in box.begun]
        assert len(begun) == len(set(begun))

    @invariant()
    def what_runs_belongs_to_a_job_that_has_not_ended(self) -> None:
        """An exception is a job that was aborted while its machine did not answer: it is removed from there later."""
        known = {job.id for job in self.unfinished}
        aborted = {job.id for name in SIZES for job in self.store.jobs.to_discard(name) if job.stop == "abort"}
        assert {name.split("-")[0] for _, name in self.running} <= known | aborted

    @invariant()
    def only_what_is_preemptible_gives_way_and_only_to_what_is_more_important(self) -> None:
        for job in map(self.store.jobs.require, self.jobs):
            said = [attempt.reason.text if attempt.reason else "" for attempt in job.history if attempt.preempted]
            assert not (said or job.preempted_by) or job.definition.preemptible
            for reason in (*said, *([f"preempted by {job.preempted_by}"] if job.preempted_by else [])):
                winner = re.fullmatch(r"preempted by ann's (run\d+)", reason)
                assert winner
                assert self.store.jobs.of(winner[1])[0].priority > job.priority

    @invariant()
    def what_waits_says_why(self) -> None:
        for job in self.unfinished:
            assert job.status is not Status.QUEUED or job.reason

    def teardown(self) -> None:
        """End the day: every machine is up, and every job may run and ends."""
        try:
            for name, box in self.boxes.items():
                box.down = False
                self.store.runners.change(name, drained=None)
            self.engine.hold(self.unfinished, None)
            for _ in range(8 * len(self.jobs) + 4):
                if not self.unfinished:
                    break
                self.settle(80.0)
                for box, name in self.running:
                    box.containers[name].code = 0
            self.settle(80.0)
            assert self.unfinished == []
            assert [len(box.containers) for box in self.boxes.values()] == [0, 0]
            for job in map(self.store.jobs.require, self.jobs):
                tried = job.attempt - sum(attempt.preempted for attempt in job.history)
                assert tried <= (job.definition.retry.attempts if job.definition.retry else 1)
        finally:
            self.loop.run_until_complete(self.engine.close())
            self.loop.close()
            self.store.close()
            self.folder.cleanup()


TestDay = Day.TestCase
TestDay.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
