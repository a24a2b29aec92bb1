"""Launches a job on the runner that it was placed on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from dstack.commands.command import Command, Stdin
from dstack.commands.job.launch import Launched, launch
from dstack.commands.machine.docker_registry import Login
from dstack.commands.machine.pull import PullProgress
from dstack.engine.context import Context
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.order import order
from dstack.engine.lifecycle.upload_status import EVERY
from dstack.engine.transfer.fetch_dependencies import gathered, reached, reused
from dstack.engine.transfer.push_code import counted, keep_spare, launch_with_code, ship
from dstack.errors import CommandError, HostError, HostUnreachableError
from dstack.executors.docker.failures import bare, pulling, starting
from dstack.hosts.host import ask
from dstack.model.job.job import Job
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.status import Phase, Progress, Status
from dstack.model.text.units import rfc3339


class ShippingProgress:
    """Reports how much of the code, and then of the dependencies' artifacts, was sent to the runner."""

    def __init__(self, placed: JobOnRunner, clock: Callable[[], float] = time.monotonic) -> None:
        self.placed = placed
        self.clock = clock
        self.reported = clock()

    def __call__(self, sent: int, total: int) -> None:
        """Report the sent and the total bytes."""
        if self.clock() - self.reported >= EVERY:
            self.reported = self.clock()
            self.placed.change(preparation=Phase.SHIPPING, progress=Progress(sent, total))


async def launched(placed: JobOnRunner) -> Launched:
    """Launch the job once the runner has its code and image. A job that has already started is left alone."""
    context, job, runner = placed.context, placed.job, placed.runner
    snapshot = placed.store.runs.require(job.run).snapshot
    needed = await context.dependencies(job)
    await reached(context, job, runner)
    copied, lacking = await reused(context, job, runner, needed)
    fetched = await gathered(context, job, runner, lacking, beside=copied)
    sent = [] if fetched else lacking
    ordered = order(context, job, runner, artifacts=bool(sent), gathered=copied or fetched)
    tell = ShippingProgress(placed)
    given: Stdin = context.tar(sent)
    if callable(given):
        given = counted(given, sum(manifest.bytes for manifest in sent), tell)
    host_context = placed.host_context
    answer = await explained(
        placed,
        launch_with_code(context, snapshot, runner, lambda pack: launch(host_context, ordered, given, pack), tell),
    )
    command = launch(host_context, ordered, given)
    if answer.outcome == "need-code":
        await ship(context, snapshot, runner, answer.has, tell)
        answer = await explained(placed, ask(placed.host, command))
    if answer.outcome == "need-image":
        answer = await pulled(placed, command)
    if answer.spare:
        keep_spare(context, runner, snapshot)
    return answer


async def pulled(placed: JobOnRunner, command: Command[Launched]) -> Launched:
    """Launch once the runner has the image. It is pulled once, however many jobs wait for it there."""
    job, name = placed.job, placed.runner.name

    def tell(pull: PullProgress) -> None:
        text = f"pulling {job.image} on {name}" + (f": {pull.words}" if pull.words else "")
        reason = Reason(ReasonCode.PULLING_IMAGE, text)
        placed.change(preparation=Phase.PULLING, progress=pull.progress, reason=reason)

    login = login_of(placed.context, job)
    try:
        await placed.context.pulls.fetch(name, placed.host, placed.host_context, job.image, login, tell)
    except CommandError as refused:
        raise not_pulled(job, name, refused) from refused
    placed.change(preparation=Phase.STARTING, progress=None, reason=None)
    answer = await explained(placed, ask(placed.host, command))
    if answer.digest:
        placed.store.pulled_images.add(name, job.image, answer.digest)
    return answer


def login_of(context: Context, job: Job) -> Login | None:
    """Who pulls the job's image; None for the runner's own login. Raises NotFoundError for a deleted secret."""
    auth = job.definition.registry_auth
    return Login(auth.username, context.store.secrets.require(auth.password)) if auth else None


def not_pulled(job: Job, runner: str, refused: CommandError) -> HostError:
    """The error for an image that could not be pulled."""
    auth = job.definition.registry_auth
    username, secret = (auth.username, auth.password) if auth else ("", "")
    words = bare(refused.stderr) or "Docker gives no reason"
    failure = pulling(words, runner=runner, image=job.image, username=username, secret=secret)
    what = f"{failure.what}: {words}" if failure.what else words
    error = HostUnreachableError if failure.silent else HostError
    return error(f"pulling {job.image} failed: {what}", hint=failure.hint, code=failure.code)


async def explained(placed: JobOnRunner, launching: Awaitable[Launched]) -> Launched:
    """Launch. On failure, say why; if the machine itself is at fault, record that, too."""
    try:
        return await launching
    except CommandError as refused:
        job, name = placed.job, placed.runner.name
        words = bare(refused.stderr)
        failure = starting(words, runner=name, image=job.image, gpus=job.gpus)
        if failure.finding:
            placed.context.fleet.mark(name, failure.finding)
        error = HostUnreachableError if failure.silent else HostError
        what = failure.what or f"{refused.name} failed with exit status {refused.exit_status}"
        raise error(f"{what}: {words}", hint=failure.hint, code=failure.code) from refused


def begun(placed: JobOnRunner, answer: Launched) -> None:
    """Record the answer to a launch."""
    if answer.outcome not in ("started", "exists"):
        raise HostError(f"the job could not be launched: {placed.runner.name} answered '{answer.outcome}'")
    placed.change(
        status=Status.RUNNING,
        started_at=placed.job.started_at or rfc3339(time.time()),
        launch=answer.launch,
        image_digest=answer.digest,
        progress=None,
        reason=None,
        unreachable_since=None,
    )
