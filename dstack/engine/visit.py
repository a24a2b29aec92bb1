"""A visit to a running job: a command in its container, or a connection to one of its ports."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from dstack.commands.host import TerminalSize
from dstack.engine.context import Context
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.launch import environment_with
from dstack.errors import ConflictError, ErrorCode, NotRunningError
from dstack.executors.entered import Entered
from dstack.executors.executor import Executor
from dstack.model.job.execution import ContainerCommand
from dstack.model.job.job import Job
from dstack.model.job.status import Status

WAYS = {
    Status.QUEUED: "to see why: dstack why {run}",
    Status.PREPARING: "to follow it until it runs: dstack attach {run}",
    Status.UPLOADING: "to see what it stored: dstack artifacts list {run}",
}
OVER = "to see what it printed: dstack logs {run}"


def visited(jobs: Sequence[Job]) -> Job:
    """Return the only one of these jobs of a run that is running. Raises NotRunningError, or ConflictError for
    several."""
    running = [job for job in jobs if job.status is Status.RUNNING]
    if len(running) > 1:
        names = ", ".join(f"{job.id} ({job.workflow})" for job in running)
        message = f"{len(running)} jobs of {running[0].run} are running: {names}"
        raise ConflictError(message, hint="name one of the jobs", code=ErrorCode.AMBIGUOUS)
    if not running:
        raise not_running(next((job for job in jobs if not job.finished), jobs[-1]))
    return running[0]


def not_running(job: Job) -> NotRunningError:
    """Return the error for a job without a running container: where it is, and what to type."""
    now = job.status.value if job.finished else job.phase.value
    source = f", and its result came from {job.cached_from}" if job.cached_from else ""
    message = f"{job.workflow} of {job.run} is not running: it is {now}{source}"
    return NotRunningError(message, hint=WAYS.get(job.status, OVER).format(run=job.run))


@dataclass
class Visit:
    """Opens one command in a job's container, and sees to its end. `over` is to be set once it has ended by itself: if
    it has not when the visit ends, it is ended."""

    context: Context
    job: Job
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    over: bool = False

    def command(
        self, command: tuple[str, ...], terminal: TerminalSize | None, term: str | None
    ) -> Callable[[], Awaitable[Entered]]:
        """Return what runs a command with the job's environment, except for `-e` and secrets."""
        job_on_runner = JobOnRunner(self.context, self.job.id)
        environment = environment_with(self.job, {})
        entry = ContainerCommand(
            id=self.id,
            command=command,
            folder="/".join(filter(None, ("/workflow", job_on_runner.snapshot.project))),
            environment={name: value for name, value in environment.items() if value is not None},
            term=term,
        )
        return lambda: job_on_runner.executor.enter(job_on_runner.attempt, entry, terminal)

    def port(self, port: int) -> Callable[[], Awaitable[Entered]]:
        """Return what connects to a port of the container."""
        job_on_runner = JobOnRunner(self.context, self.job.id)
        return lambda: job_on_runner.executor.connect(job_on_runner.attempt, port, self.id)

    @asynccontextmanager
    async def opened(self, enter: Callable[[], Awaitable[Entered]]) -> AsyncIterator[Entered]:
        """Open it for the body. Raises NotRunningError if the container has ended meanwhile."""
        job_on_runner = JobOnRunner(self.context, self.job.id)
        executor, attempt = job_on_runner.executor, job_on_runner.attempt
        entered: Entered | None = None
        try:
            entered = await enter()
            if not entered.running:
                self.over = True
                raise NotRunningError(
                    f"the container of {self.job.workflow} of {self.job.run} is not running"
                    f" ({entered.state or 'there is none'})",
                    hint=OVER.format(run=self.job.run),
                )
            yield entered
        finally:
            # not here: whoever visits may be gone, and the task cancelled
            name = f"ending a visit to job {self.job.id}"
            self.context.tasks.start(name, lambda: self.end(entered, executor, attempt), once=True)

    async def end(self, entered: Entered | None, executor: Executor, attempt: str) -> None:
        """Free the connection, and leave nothing in the container of what did not end by itself."""
        if entered is not None:
            await entered.channel.close()
        if not self.over:
            await executor.leave(attempt, self.id)
