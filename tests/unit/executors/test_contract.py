"""What the engine expects of every executor: at most once, a fence, and a log without gaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from dstack.commands.command import Command, Result
from dstack.decide import Claim, ContainerState, Recorded, decide
from dstack.errors import CommandError, EngineSilentError, HostUnreachableError
from dstack.executors.docker.executor import DockerExecutor
from dstack.executors.docker.memory import Memory
from dstack.executors.executor import Executor, RunnerFaultError
from dstack.hosts.recording import RecordingHost, Reply
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Order
from dstack.model.paths import HostLayout
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Address, Facts, Runner
from tests.unit.engine.lifecycle.machine import LOG, Machine
from tests.unit.executors import fake

A = "abc"
OUT = (Artifact(path="out"),)


class Ground(Protocol):
    """An executor, and how a test controls its runner."""

    begun: int
    exit_code: int
    running: bool
    lacks_image: bool
    broken: bool
    silent: bool
    made: dict[str, str]


class BreakableMachine(Machine):
    """A machine with Docker whose connection and GPUs may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.silent = False
        self.broken = False

    def reply(self, command: Command[Any]) -> Reply:
        if self.silent:
            raise HostUnreachableError("the connection broke")
        return super().reply(command)

    def launch(self, command: Command[Any]) -> Reply:
        if self.broken:
            return Result(125, b"", b"nvidia-container-cli: initialization error: driver error: timed out")
        return super().launch(command)


class Case:
    """One executor under test, the bytes of its jobs' logs, and its runner."""

    def __init__(self, executor: Executor, ground: Ground, log: bytes) -> None:
        self.executor = executor
        self.ground = ground
        self.log = log


@pytest.fixture(params=["docker", "fake"])
def case(request: pytest.FixtureRequest) -> Case:
    if request.param == "fake":
        executor = fake.FakeExecutor()
        return Case(executor, executor, fake.LOG)
    machine = BreakableMachine()
    runner = Runner(name="box", address=Address(host="box"), facts=Facts(machine="m"))
    context = HostContext(HostLayout("~/.dstack-host", "m", "server"))
    return Case(DockerExecutor(Memory(), runner, machine.host, context), machine, LOG)


def order(attempt: str = A, gpus: tuple[int, ...] = ()) -> Order:
    snapshot = Snapshot(repo="repo", tree="tree")
    return Order(job="abc", attempt=attempt, image="busybox", snapshot=snapshot, script="true", gpus=gpus)


async def read(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([data async for data in stream])


def test_a_launch_that_is_repeated_starts_the_commands_once(case: Case) -> None:
    async def launches() -> list[str]:
        return [(await case.executor.launch(order())).outcome for _ in range(3)]

    assert asyncio.run(launches()) == ["started", "exists", "exists"]
    assert case.ground.begun == 1


def test_a_launch_tells_where_it_happened_so_that_a_restart_is_noticed(case: Case) -> None:
    async def both() -> None:
        launched = await case.executor.launch(order())
        observed = await case.executor.observe(A)

        assert launched.digest
        assert launched.origin == observed.origin

    asyncio.run(both())


def test_what_was_fenced_never_starts(case: Case) -> None:
    async def fenced() -> None:
        assert (await case.executor.stop(A, 5)).outcome == "fenced"
        assert (await case.executor.launch(order())).outcome == "fenced"
        assert (await case.executor.stop(A, 0)).outcome == "fenced"
        assert (await case.executor.observe(A)).claim is Claim.FENCED

    asyncio.run(fenced())
    assert case.ground.begun == 0


def test_nothing_is_launched_without_its_image(case: Case) -> None:
    case.ground.lacks_image = True
    told: list[tuple[Any, ...]] = []

    async def launches() -> list[str]:
        first = await case.executor.launch(order())
        await case.executor.prepare("busybox", None, lambda *progress: told.append(progress))
        return [first.outcome, (await case.executor.launch(order())).outcome]

    assert asyncio.run(launches()) == ["need-image", "started"]
    assert told
    assert case.ground.begun == 1


def test_a_runner_at_fault_is_told_apart_from_a_faulty_job(case: Case) -> None:
    case.ground.broken = True

    with pytest.raises(RunnerFaultError) as fault:
        asyncio.run(case.executor.launch(order(gpus=(0,))))

    assert fault.value.finding.name == "gpu-toolkit"
    assert case.ground.begun == 0


def test_what_is_observed_leads_to_a_decision(case: Case) -> None:
    async def decisions() -> None:
        assert decide(Recorded(), await case.executor.observe(A)).launch

        case.ground.running = True
        launched = await case.executor.launch(order())
        recorded = Recorded(launch=launched.origin)
        observed = await case.executor.observe(A)
        assert (observed.claim, observed.exit_code) == (Claim.CLAIMED, None)
        assert observed.container is not None
        assert observed.container.state is ContainerState.RUNNING
        assert decide(recorded, observed).running

        case.ground.exit_code = 143
        assert (await case.executor.stop(A, 5)).outcome == "stopping"
        ended = decide(recorded, await case.executor.observe(A))
        assert (ended.ended, ended.exit_code) == (True, 143)
        assert (await case.executor.stop(A, 5)).outcome == "ended"

    asyncio.run(decisions())


def test_a_log_is_read_from_any_offset(case: Case) -> None:
    async def logs() -> None:
        assert await read(case.executor.follow(A, 0)) == b""
        await case.executor.launch(order())
        for offset in (0, 5, len(case.log)):
            assert await read(case.executor.follow(A, offset)) == case.log[offset:]
            assert await read(case.executor.read_log(A, offset)) == case.log[offset:]

    asyncio.run(logs())


def test_only_what_runs_can_be_warned(case: Case) -> None:
    async def warned() -> None:
        case.ground.running = True
        await case.executor.launch(order())
        await case.executor.warn(A, "USR1")
        await case.executor.stop(A, 0)
        with pytest.raises(CommandError):
            await case.executor.warn(A, "USR1")

    asyncio.run(warned())


def test_the_artifacts_are_listed_or_missing(case: Case) -> None:
    async def collected() -> None:
        await case.executor.launch(order())
        assert (await case.executor.collect(A, "", "busybox", OUT)).missing == ("out",)

        case.ground.made["out/latest"] = "step-1"
        found = await case.executor.collect(A, "", "busybox", OUT)
        assert [(file.path, file.link) for file in found.files] == [("out/latest", "step-1")]
        assert (found.missing, found.refused, found.gone) == ((), (), False)

    asyncio.run(collected())


@pytest.mark.parametrize("keeping", [False, True])
def test_nothing_is_left_of_what_is_discarded(case: Case, keeping: bool) -> None:
    async def discarded() -> None:
        await case.executor.launch(order())
        for _ in range(2):
            if keeping:
                assert await case.executor.retain(A, "", "busybox", OUT)
            else:
                await case.executor.discard(A, "busybox")
        observed = await case.executor.observe(A)
        assert (observed.claim, observed.container, observed.exit_code) == (Claim.GONE, None, None)

    asyncio.run(discarded())


@pytest.mark.parametrize(
    "method", ["launch", "prepare", "observe", "follow", "read_log", "warn", "stop", "collect", "retain", "discard"]
)
def test_a_runner_that_does_not_answer_is_never_a_result(case: Case, method: str) -> None:
    calls: dict[str, Any] = {
        "launch": lambda: case.executor.launch(order()),
        "prepare": lambda: case.executor.prepare("busybox", None, lambda *progress: None),
        "observe": lambda: case.executor.observe(A),
        "follow": lambda: read(case.executor.follow(A, 0)),
        "read_log": lambda: read(case.executor.read_log(A, 0)),
        "warn": lambda: case.executor.warn(A, "USR1"),
        "stop": lambda: case.executor.stop(A, 5),
        "collect": lambda: case.executor.collect(A, "", "busybox", OUT),
        "retain": lambda: case.executor.retain(A, "", "busybox", OUT),
        "discard": lambda: case.executor.discard(A, "busybox"),
    }
    case.ground.silent = True

    async def called() -> None:
        await calls[method]()

    with pytest.raises(HostUnreachableError):
        asyncio.run(called())


SAID = "Cannot connect to the Docker daemon at x.sock. Is the docker daemon running?"


@pytest.mark.parametrize(
    ("status", "stderr", "words"),
    [
        (125, f"{SAID}\ndocker: {SAID}\nSee 'docker run --help'.\n", SAID),
        (1, f"docker: {SAID}.\nSee 'docker run --help'.\n", SAID),
        (124, "", "it did not answer in time"),
    ],
)
def test_a_silent_docker_is_told_in_its_first_words(status: int, stderr: str, words: str) -> None:
    refused = Result(status, b"", stderr.encode())
    host = RecordingHost(lambda command: refused)
    runner = Runner(name="box", address=Address(host="box"), facts=Facts(machine="m"))
    executor = DockerExecutor(Memory(), runner, host, HostContext(HostLayout("~/r", "m", "s"), "docker"))

    for asking in (executor.discard(A, "busybox"), executor.observe(A), executor.warn(A, "USR1"), executor.stop(A, 0)):
        with pytest.raises(EngineSilentError) as silent:
            asyncio.run(asking)
        assert (silent.value.engine, silent.value.words) == ("Docker", words)


def test_a_launch_and_all_of_its_log_are_one_round_trip() -> None:
    # Given a machine that has the code and the image
    answer = "outcome=started\nboot=b\nuptime=1\ndocker=1:2\ndigest=sha256:1\n\nfirst line\n"
    host = RecordingHost(lambda command: answer)
    runner = Runner(name="box", address=Address(host="box"), facts=Facts(machine="m"))
    executor = DockerExecutor(Memory(), runner, host, HostContext(HostLayout("~/r", "m", "s")))

    async def run() -> bytes:
        assert (await executor.launch(order())).outcome == "started"
        return await read(executor.follow(A, 0))

    # When a job is launched and followed, then the host was asked once
    assert asyncio.run(run()) == b"first line\n"
    assert len(host.commands) == 1
