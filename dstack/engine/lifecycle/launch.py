"""Launches a job on the runner that it was placed on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping

from dstack.commands.command import Command, Stdin
from dstack.commands.host import ask
from dstack.commands.job.launch import Launched, Order, launch
from dstack.commands.machine.docker_registry import Login
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.transfer.fetch_dependencies import gathered, reached, reused
from dstack.engine.transfer.push_code import keep_spare, launch_with_code, ship
from dstack.errors import CommandError, HostError, HostUnreachableError
from dstack.executors.docker.failures import bare, pulling, starting
from dstack.model.job import script
from dstack.model.job.job import Job, Run
from dstack.model.job.resources import ask_of
from dstack.model.job.status import Status
from dstack.model.project import environment
from dstack.model.project.variables import config_args
from dstack.model.runner import mounts
from dstack.model.runner.runner import Runner
from dstack.model.text.units import rfc3339, size

SAFE_DIRECTORY = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
"""The tree belongs to the runner's user, not the container's, so git would refuse it ("dubious ownership")."""


async def launched(job_on_runner: JobOnRunner) -> Launched:
    """Launch the job once the runner has its code and image. A job that has already started is left alone."""
    context, job, runner = job_on_runner.context, job_on_runner.job, job_on_runner.runner
    needed = await context.dependencies(job)
    await reached(context, job, runner)
    copied, lacking = await reused(context, job, runner, needed)
    fetched = await gathered(context, job, runner, lacking, beside=copied)
    sent = [] if fetched else lacking
    ordered = order(job_on_runner, artifacts=bool(sent), gathered=copied or fetched)
    given: Stdin = context.tar(sent)
    host_context = job_on_runner.host_context
    answer = await explained(
        job_on_runner, launch_with_code(job_on_runner, lambda pack: launch(host_context, ordered, given, pack))
    )
    command = launch(host_context, ordered, given)
    if answer.outcome == "need-code":
        await ship(job_on_runner, answer.has)
        answer = await explained(job_on_runner, ask(job_on_runner.host, command))
    if answer.outcome == "need-image":
        answer = await pulled(job_on_runner, command)
    if answer.spare:
        keep_spare(job_on_runner)
    return answer


async def pulled(job_on_runner: JobOnRunner, command: Command[Launched]) -> Launched:
    """Launch once the runner has the image. It is pulled once, however many jobs wait for it there."""
    job, name = job_on_runner.job, job_on_runner.runner.name

    def tell(how_far: str) -> None:
        job_on_runner.change(reason=f"pulling {job.image} on {name}" + (f": {how_far}" if how_far else ""))

    login = login_of(job_on_runner)
    try:
        await job_on_runner.context.pulls.fetch(
            name, job_on_runner.host, job_on_runner.host_context, job.image, login, tell
        )
    except CommandError as refused:
        raise not_pulled(job, name, refused) from refused
    answer = await explained(job_on_runner, ask(job_on_runner.host, command))
    if answer.digest:
        job_on_runner.store.pulled_images.add(name, job.image, answer.digest)
    return answer


def login_of(job_on_runner: JobOnRunner) -> Login | None:
    """Who pulls the job's image; None for the runner's own login. Raises NotFoundError for a deleted secret."""
    auth = job_on_runner.job.definition.registry_auth
    return Login(auth.username, job_on_runner.store.secrets.require(auth.password)) if auth else None


def not_pulled(job: Job, runner: str, refused: CommandError) -> HostError:
    """The error for an image that could not be pulled."""
    auth = job.definition.registry_auth
    username, secret = (auth.username, auth.password) if auth else ("", "")
    words = bare(refused.stderr) or "Docker gives no reason"
    failure = pulling(words, runner=runner, image=job.image, username=username, secret=secret)
    what = f"{failure.what}: {words}" if failure.what else words
    error = HostUnreachableError if failure.silent else HostError
    return error(f"pulling {job.image} failed: {what}", hint=failure.hint)


async def explained(job_on_runner: JobOnRunner, launching: Awaitable[Launched]) -> Launched:
    """Launch. On failure, say why; if the machine itself is at fault, record that, too."""
    try:
        return await launching
    except CommandError as refused:
        job, name = job_on_runner.job, job_on_runner.runner.name
        words = bare(refused.stderr)
        failure = starting(words, runner=name, image=job.image, gpus=job.gpus)
        if failure.finding:
            job_on_runner.context.fleet.mark(name, failure.finding)
        error = HostUnreachableError if failure.silent else HostError
        what = failure.what or f"{refused.name} failed with exit status {refused.exit_status}"
        raise error(f"{what}: {words}", hint=failure.hint) from refused


def record_start(job_on_runner: JobOnRunner, answer: Launched) -> None:
    """Record the answer to a launch."""
    if answer.outcome not in ("started", "exists"):
        raise HostError(f"the job could not be launched: {job_on_runner.runner.name} answered '{answer.outcome}'")
    job_on_runner.change(
        status=Status.RUNNING,
        started_at=job_on_runner.job.started_at or rfc3339(time.time()),
        launch=answer.launch,
        image_digest=answer.digest,
        reason=None,
        unreachable_since=None,
    )


def order(job_on_runner: JobOnRunner, *, artifacts: bool, gathered: bool) -> Order:
    """What to launch: the job with its environment and its script. `artifacts`: some of its dependencies are sent on
    stdin. `gathered`: some are already on the runner."""
    job, runner = job_on_runner.job, job_on_runner.runner
    run = job_on_runner.store.runs.require(job.run)
    resources = job.definition.resources
    asked = ask_of(resources)
    leased = [gpu for gpu in (runner.facts.gpus if runner.facts else ()) if gpu.index in job.gpus]
    return Order(
        job=job.id,
        attempt=job_on_runner.attempt,
        image=job.image,
        snapshot=run.snapshot,
        depth=job.definition.fetch_depth,
        user=job.definition.user,
        gpus=job.gpus,
        cpu=asked.cpu,
        memory=asked.memory,
        shm=size(resources.shm_size) if resources.shm_size else 0,
        script=script.script(job.definition, job.variables, job.id, job.run),
        environment=variables_of(job, run, runner, give_secrets(job_on_runner)),
        caches=job.definition.cache,
        artifacts=artifacts,
        gathered=gathered,
        mounts=tuple(mounts.parse(text) for text in job.definition.mounts),
        allowed=mounts.outermost(runner.allow_mounts),
        nodes=tuple(gpu.node for gpu in leased if gpu.vendor == "amd"),
    )


def give_secrets(job_on_runner: JobOnRunner) -> dict[str, str]:
    """Give the job its secrets: from now on they are masked in its log. Raises NotFoundError if one has been
    deleted."""
    store = job_on_runner.store.secrets
    secrets = {name: store.require(name) for name in job_on_runner.job.definition.secrets}
    if secrets:
        store.give(job_on_runner.id, list(secrets.values()))
    return secrets


def variables_of(job: Job, run: Run, runner: Runner, secrets: Mapping[str, str]) -> dict[str, str | None]:
    """The container's environment; None unsets a variable."""
    reserved = environment.reserved_values(
        run=job.run,
        job=job.id,
        workflow=job.workflow,
        config_args=config_args(job.variables.own),
        runner=runner.name,
        gpus=job.gpus,
        attempt=job.attempt,
    )
    built = environment.build(job.variables, job.definition.env, {**run.environment, **secrets}, reserved)
    return {**SAFE_DIRECTORY, **built.values}
