"""Runs jobs with Docker or podman on a machine that the server reaches as a host."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from dstack.commands.artifacts.collect import ArtifactListing, listing
from dstack.commands.artifacts.retain import keep
from dstack.commands.command import Command, Stdin
from dstack.commands.host import Host, T, TerminalSize, ask, ask_and_stream
from dstack.commands.job.enter import connect, enter, leave
from dstack.commands.job.launch import ANSWER_END, launch
from dstack.commands.job.observe import follow, observe, read_log
from dstack.commands.job.receive_code import receive, spare
from dstack.commands.job.stop import discard, stop, warn
from dstack.commands.machine.pull import Login
from dstack.commands.machine.take_stock import Stock, take_stock
from dstack.decide import Observed
from dstack.errors import CommandError, EngineSilentError
from dstack.executors.docker.failures import not_pulled, not_started, silence
from dstack.executors.docker.memory import Memory
from dstack.executors.entered import Entered, entered
from dstack.executors.executor import Tell
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import ContainerCommand, Launched, Order, Received, Stopped
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Runner

ENGINE = "Docker"
ANSWER = 120.0
"""Seconds for the answer to a short question."""
FILES = 300.0
"""Seconds for writing a spare tree, or removing what an attempt left."""


class DockerExecutor:
    """Implements `Executor` with one script per method (`templates/host/job/`). All runners share the `memory`."""

    def __init__(self, memory: Memory, runner: Runner, host: Host, host_context: HostContext) -> None:
        self.memory = memory
        self.runner = runner.name
        self.host = host
        self.host_context = replace(host_context, daemons=memory.daemons.get(runner.name, ()))

    async def receive(self, snapshot: Snapshot, pack: Stdin) -> Received:
        with self.explained():
            return await ask(self.host, receive(self.host_context, snapshot, pack))

    async def spare(self, snapshot: Snapshot) -> None:
        await self.answered(spare(self.host_context, snapshot), FILES)

    async def prepare(self, image: str, login: Login | None, tell: Tell) -> None:
        try:
            await self.memory.pulls.fetch(self.runner, self.host, self.host_context, image, login, tell)
        except CommandError as refused:
            if words := silence(refused):
                raise EngineSilentError(ENGINE, self.runner, words) from refused
            raise not_pulled(refused, runner=self.runner, image=image, login=login) from refused

    async def launch(self, order: Order, artifacts: Stdin = b"", pack: bytes = b"") -> Launched:
        # tar reads its input to the end, and the log's reader has to leave it open
        follow = not order.artifacts
        command = launch(self.host_context, order, artifacts, pack, follow=follow)
        with self.explained(image=order.image, gpus=order.gpus):
            if not follow:
                launched = await ask(self.host, command)
            else:
                launched, log = await ask_and_stream(self.host, command, ANSWER_END)
                if launched.outcome == "started":
                    self.memory.keep_log(order.attempt, log)
                else:
                    await log.aclose()
        if launched.origin:
            self.memory.note_daemons(self.runner, launched.origin)
        return launched

    async def observe(self, attempt: str) -> Observed:
        observed = await self.answered(observe(self.host_context, attempt), ANSWER)
        self.memory.note_daemons(self.runner, observed.origin)
        return observed

    def follow(self, attempt: str, offset: int) -> AsyncGenerator[bytes, None]:
        return self.memory.take_log(attempt, offset) or self.host.stream(follow(self.host_context, attempt, offset))

    def read_log(self, attempt: str, offset: int) -> AsyncGenerator[bytes, None]:
        return self.host.stream(read_log(self.host_context, attempt, offset))

    async def warn(self, attempt: str, signal: str) -> None:
        await self.answered(warn(self.host_context, attempt, signal), ANSWER)

    async def stop(self, attempt: str, grace: int | None) -> Stopped:
        return await self.answered(stop(self.host_context, attempt, grace), (grace or 0) + ANSWER)

    async def collect(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> ArtifactListing:
        return await self.answered(listing(self.host_context, attempt, project, image, artifacts), None)

    async def retain(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> bool:
        return await self.answered(keep(self.host_context, attempt, project, image, artifacts), FILES)

    async def take_stock(self, owner: str, epoch: int, known: Sequence[str]) -> Stock:
        whoever = replace(self.host_context, owner="")
        return await ask(self.host, take_stock(whoever, owner, epoch, known), timeout=ANSWER)

    async def enter(self, attempt: str, entry: ContainerCommand, terminal: TerminalSize | None) -> Entered:
        return await entered(await self.host.open(enter(self.host_context, attempt, entry), terminal=terminal))

    async def connect(self, attempt: str, port: int, entry: str) -> Entered:
        return await entered(await self.host.open(connect(self.host_context, attempt, port, entry)))

    async def leave(self, attempt: str, entry: str) -> None:
        await self.answered(leave(self.host_context, attempt, entry), ANSWER)

    async def discard(self, attempt: str, image: str) -> None:
        await self.answered(discard(self.host_context, attempt, image), FILES)

    async def answered(self, command: Command[T], timeout: float | None = None) -> T:
        """Run a command. If Docker does not answer, that is a condition of the runner, not the command's failure."""
        with self.heard():
            return await ask(self.host, command, timeout=timeout)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Raise EngineSilentError for a command that failed because Docker does not answer."""
        try:
            yield
        except CommandError as refused:
            if words := silence(refused):
                raise EngineSilentError(ENGINE, self.runner, words) from refused
            raise

    @contextmanager
    def explained(self, image: str = "", gpus: tuple[int, ...] = ()) -> Iterator[None]:
        """Raise an error that says why a job can't start, for a command that it needs to start."""
        try:
            with self.heard():
                yield
        except CommandError as refused:
            raise not_started(refused, runner=self.runner, image=image, gpus=gpus) from refused
