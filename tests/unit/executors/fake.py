"""An executor without containers: an attempt is a row in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from dstack.commands.artifacts.collect import ArtifactListing
from dstack.commands.command import Stdin
from dstack.commands.host import Channel, Host, TerminalSize
from dstack.commands.machine.pull import Login
from dstack.commands.machine.take_stock import FoundAttempt, Stock
from dstack.decide import Claim, Container, ContainerState, Observed
from dstack.errors import CommandError, HostUnreachableError
from dstack.executors.entered import Entered
from dstack.executors.executor import RunnerFaultError, Tell
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import ContainerCommand, Launched, Order, Received, Stopped
from dstack.model.job.job import Origin
from dstack.model.job.manifest import File
from dstack.model.job.reasons import ReasonCode
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Finding, Runner

LOG = b"first line\nsecond line\n"
ORIGIN = Origin("boot 1", "engine 1")
BROKEN = Finding("gpu-toolkit", "the driver fails", "jobs can't use GPUs", "reboot")


class Nothing(Channel):
    """A program that printed nothing, and has ended."""

    @property
    async def stdout(self) -> AsyncGenerator[bytes, None]:  # type: ignore[override]
        return
        yield b""

    async def wait(self) -> int:
        return 0

    async def close(self) -> None:
        return

    async def __aexit__(self, *about: object) -> None:
        return


@dataclass
class Attempt:
    """What the folder protocol records of an attempt."""

    claim: Claim
    running: bool = False


class FakeExecutor:
    """Keeps the contract. The commands end at once unless they should be `running`; they make links, which `made` maps
    to their targets."""

    def __init__(self) -> None:
        self.attempts: dict[str, Attempt] = {}
        self.begun = 0
        self.exit_code = 0
        self.running = False
        self.lacks_image = False
        self.broken = False
        self.silent = False
        self.made: dict[str, str] = {}
        self.retained: set[str] = set()

    def __call__(self, runner: Runner, host: Host, host_context: HostContext) -> FakeExecutor:
        """Open the executor of a runner."""
        return self

    def found(self, attempt: str) -> Attempt:
        if self.silent:
            raise HostUnreachableError("it does not answer")
        return self.attempts.get(attempt, Attempt(Claim.GONE))

    async def take_stock(self, owner: str, epoch: int, known: Sequence[str]) -> Stock:
        names = {name: FoundAttempt(name=name, claim=found.claim) for name, found in self.attempts.items()}
        return Stock(attempts=names)

    async def receive(self, snapshot: Snapshot, pack: Stdin) -> Received:
        return Received.OK

    async def spare(self, snapshot: Snapshot) -> None:
        pass

    async def prepare(self, image: str, login: Login | None, tell: Tell) -> None:
        self.found("")
        tell("", None)
        self.lacks_image = False

    async def launch(self, order: Order, artifacts: Stdin = b"", pack: bytes = b"") -> Launched:
        found = self.found(order.attempt)
        if found.claim is Claim.FENCED:
            return Launched("fenced")
        if found.claim is Claim.CLAIMED:
            return Launched("exists", ORIGIN, "digest")
        if self.lacks_image:
            return Launched("need-image")
        if self.broken:
            raise RunnerFaultError("the GPUs can't be used", BROKEN, hint=None, code=ReasonCode.GPU_DRIVER)
        self.attempts[order.attempt] = Attempt(Claim.CLAIMED, self.running)
        self.begun += 1
        return Launched("started", ORIGIN, "digest")

    async def observe(self, attempt: str) -> Observed:
        found = self.found(attempt)
        ended = found.claim is Claim.CLAIMED and not found.running
        return Observed(
            exit_code=self.exit_code if ended else None,
            claim=found.claim,
            container=Container(state=ContainerState.RUNNING) if found.running else None,
            origin=ORIGIN,
        )

    async def follow(self, attempt: str, offset: int) -> AsyncGenerator[bytes, None]:
        if self.found(attempt).claim is Claim.CLAIMED:
            yield LOG[offset:]

    def read_log(self, attempt: str, offset: int) -> AsyncGenerator[bytes, None]:
        return self.follow(attempt, offset)

    async def warn(self, attempt: str, signal: str) -> None:
        if not self.found(attempt).running:
            raise CommandError("warning the job", 1, "it does not run")

    async def stop(self, attempt: str, grace: int | None) -> Stopped:
        found = self.found(attempt)
        if found.claim is not Claim.CLAIMED:
            self.attempts[attempt] = Attempt(Claim.FENCED)
            return Stopped("fenced")
        if found.running and grace is None:
            return Stopped("running")
        outcome, found.running = Stopped("stopping" if found.running else "ended"), False
        return outcome

    async def collect(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> ArtifactListing:
        self.found(attempt)
        files = tuple(File(path, 0, 0o777, "", target) for path, target in self.made.items())
        return ArtifactListing(files, () if files else tuple(artifact.path for artifact in artifacts), ())

    async def retain(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> bool:
        await self.discard(attempt, image)
        self.retained.add(attempt)
        return True

    async def enter(self, attempt: str, entry: ContainerCommand, terminal: TerminalSize | None) -> Entered:
        return Entered(Nothing(), "running" if self.found(attempt).running else "", b"")

    async def connect(self, attempt: str, port: int, entry: str) -> Entered:
        return await self.enter(attempt, ContainerCommand(id=entry), None)

    async def leave(self, attempt: str, entry: str) -> None:
        self.found(attempt)

    async def discard(self, attempt: str, image: str) -> None:
        self.found(attempt)
        self.attempts.pop(attempt, None)
