"""How a job's attempt runs on its runner, whatever runs it there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Protocol

from dstack.commands.artifacts.collect import ArtifactListing
from dstack.commands.command import Stdin
from dstack.commands.host import Host, TerminalSize
from dstack.commands.machine.pull import Login
from dstack.commands.machine.take_stock import Stock
from dstack.decide import Observed
from dstack.errors import HostError
from dstack.executors.entered import Entered
from dstack.model.code.snapshot import Snapshot
from dstack.model.job.execution import ContainerCommand, Launched, Order, Received, Stopped
from dstack.model.job.status import Progress
from dstack.model.project.workflow import Artifact
from dstack.model.runner.host_context import HostContext
from dstack.model.runner.runner import Finding, Runner

Tell = Callable[[str, Progress | None], None]
"""Gets how far a preparation is, in words and in numbers; "" and None while nothing is known."""


class RunnerFaultError(HostError):
    """A job could not start because of its runner, so other jobs would fail there, too: `finding` says why."""

    def __init__(self, message: str, finding: Finding, *, hint: str | None, code: str) -> None:
        super().__init__(message, hint=hint, code=code)
        self.finding = finding


class Executor(Protocol):
    """Runs attempts of jobs on one runner. It keeps the folder protocol of docs/how-it-works.md: whoever creates
    `started` first decides whether an attempt's commands ever run, and its exit file tells how they ended.

    Every method may be repeated at any point, also by a server that was started meanwhile: all state is on the runner.
    HostUnreachableError means that the call may or may not have had an effect, CommandError that the runner refused it.
    What stands in the way of a launch (`receive`, `prepare`, `launch`) is explained in a HostError that users read. An
    executor decides nothing: `decide` reads what `observe` returned.

    An executor with a queue of its own (Slurm) also needs a state for attempts that wait there: `decide` launches again
    what is CREATED for too long.
    """

    async def receive(self, snapshot: Snapshot, pack: Stdin) -> Received:
        """Store a pack of the snapshot's objects on the runner."""

    async def spare(self, snapshot: Snapshot) -> None:
        """Write the snapshot's tree once more, for the next job."""

    async def prepare(self, image: str, login: Login | None, tell: Tell) -> None:
        """Bring the image to the runner, once for all jobs that wait for it. `tell` gets the progress."""

    async def launch(self, order: Order, artifacts: Stdin = b"", pack: bytes = b"") -> Launched:
        """Start the attempt unless it has been started or fenced, in one round trip. If the runner lacks something,
        start nothing and return what it is. Raises RunnerFaultError if the runner itself is at fault."""

    async def observe(self, attempt: str) -> Observed:
        """Look at the attempt: its claim, its exit file, and the container."""

    def follow(self, attempt: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield the log's bytes from `offset` on as they arrive. May end before everything has arrived."""

    def read_log(self, attempt: str, offset: int) -> AsyncGenerator[bytes, None]:
        """Yield the log's bytes from `offset` to its current end."""

    async def warn(self, attempt: str, signal: str) -> None:
        """Send a signal that does not end the attempt to all its processes."""

    async def stop(self, attempt: str, grace: int | None) -> Stopped:
        """Fence an attempt that has not started, so that it never will. Otherwise tell it to end, and kill it after
        `grace` seconds (0: at once; None: let it run). Does not wait for the end."""

    async def collect(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> ArtifactListing:
        """List and hash the artifacts of an attempt that has ended, out of reach of whatever is left of it."""

    async def retain(self, attempt: str, project: str, image: str, artifacts: tuple[Artifact, ...]) -> bool:
        """Discard all of a collected attempt but its artifacts, for the jobs that depend on it. Returns False if they
        had to go, too."""

    async def take_stock(self, owner: str, epoch: int, known: Sequence[str]) -> Stock:
        """Return what of this server's is on the runner, and make the server the owner of it: from then on, a server
        with the same id gets an OtherServerError there. `owner` is that line; `known` are the server's own instances.
        Raises OtherServerError if another one owns it, whose epoch is not lower."""

    async def enter(self, attempt: str, entry: ContainerCommand, terminal: TerminalSize | None) -> Entered:
        """Run a command in the container of an attempt that runs. Close its channel at the end."""

    async def connect(self, attempt: str, port: int, entry: str) -> Entered:
        """Connect to a port of the attempt's container, whatever address it listens on there."""

    async def leave(self, attempt: str, entry: str) -> None:
        """End what is left in the container of a command, or of a connection, that was closed before its end."""

    async def discard(self, attempt: str, image: str) -> None:
        """Remove whatever is left of the attempt on the runner, running or not."""


OpenExecutor = Callable[[Runner, Host, HostContext], Executor]
"""Makes the executor of a runner, from the connection to it and the server's folder there."""
