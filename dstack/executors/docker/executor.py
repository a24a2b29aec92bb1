"""Runs jobs with Docker or podman on a machine that the server reaches as a host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from dstack.commands.artifacts.collect import ArtifactListing, listing
from dstack.commands.artifacts.retain import keep
from dstack.commands.command import Command, Stdin
from dstack.commands.engine_words import bare
from dstack.commands.host import Host, T, ask
from dstack.commands.job.launch import launch
from dstack.commands.job.observe import follow, observe, read_log
from dstack.commands.job.receive_code import receive, spare
from dstack.commands.job.stop import discard, stop, warn
from dstack.commands.machine.pull import Login
from dstack.commands.machine.take_stock import Stock, take_stock
from dstack.decide import Observed
from dstack.errors import CommandError, HostUnreachableError
from dstack.executors.docker.failures import not_pulled, not_started, silent
from dstack.executors.docker.image_pulls import ImagePulls
from dstack.executors.executor import Tell
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import Launched, Order, Received, Stopped
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Runner

ANSWER = 120.0
"""Seconds for the answer to a short question."""
FILES = 300.0
"""Seconds for writing a spare tree, or removing what an attempt left."""


class DockerExecutor:
    """Implements `Executor` with one script per method (`templates/host/job/`). All runners share `pulls`."""

    def __init__(self, pulls: ImagePulls, runner: Runner, host: Host, host_context: HostContext) -> None:
        self.pulls = pulls
        self.runner = runner.name
        self.host = host
        self.host_context = host_context

    async def receive(self, snapshot: Snapshot, pack: Stdin) -> Received:
        return await self.explained(receive(self.host_context, snapshot, pack))

    async def spare(self, snapshot: Snapshot) -> None:
        await ask(self.host, spare(self.host_context, snapshot), timeout=FILES)

    async def prepare(self, image: str, login: Login | None, tell: Tell) -> None:
        try:
            await self.pulls.fetch(self.runner, self.host, self.host_context, image, login, tell)
        except CommandError as refused:
            raise not_pulled(refused, runner=self.runner, image=image, login=login) from refused

    async def launch(self, order: Order, artifacts: Stdin = b"", pack: bytes = b"") -> Launched:
        command = launch(self.host_context, order, artifacts, pack)
        return await self.explained(command, image=order.image, gpus=order.gpus)

    async def observe(self, attempt: str) -> Observed:
        return await ask(self.host, observe(self.host_context, attempt), timeout=ANSWER)

    def follow(self, attempt: str, offset: int) -> AsyncIterator[bytes]:
        return self.host.stream(follow(self.host_context, attempt, offset))

    def read_log(self, attempt: str, offset: int) -> AsyncIterator[bytes]:
        return self.host.stream(read_log(self.host_context, attempt, offset))

    async def warn(self, attempt: str, signal: str) -> None:
        await ask(self.host, warn(self.host_context, attempt, signal), timeout=ANSWER)

    async def stop(self, attempt: str, grace: int | None) -> Stopped:
        return await self.answered(stop(self.host_context, attempt, grace), (grace or 0) + ANSWER)

    async def collect(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> ArtifactListing:
        return await self.answered(listing(self.host_context, attempt, project, image, artifacts), None)

    async def retain(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> bool:
        return await ask(self.host, keep(self.host_context, attempt, project, image, artifacts), timeout=FILES)

    async def take_stock(self, owner: str, epoch: int, known: Sequence[str]) -> Stock:
        whoever = replace(self.host_context, owner="")
        return await ask(self.host, take_stock(whoever, owner, epoch, known), timeout=ANSWER)

    async def discard(self, attempt: str, image: str) -> None:
        await ask(self.host, discard(self.host_context, attempt, image), timeout=FILES)

    async def answered(self, command: Command[T], timeout: float | None) -> T:
        """Run a command. If Docker does not answer, that is a condition of the runner, not the command's failure."""
        try:
            return await ask(self.host, command, timeout=timeout)
        except CommandError as refused:
            if silent(refused):
                message = f"Docker on {self.runner} does not answer: {bare(refused.stderr)}"
                raise HostUnreachableError(message, hint=f"dstack runners check {self.runner}") from refused
            raise

    async def explained(self, command: Command[T], image: str = "", gpus: tuple[int, ...] = ()) -> T:
        """Run a command that a job needs to start. If it fails, raise an error that says why."""
        try:
            return await ask(self.host, command)
        except CommandError as refused:
            raise not_started(refused, runner=self.runner, image=image, gpus=gpus) from refused
