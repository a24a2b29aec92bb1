"""Launches a job on the runner that it was placed on."""

from __future__ import annotations

import time
from collections.abc import Mapping

from msgspec.structs import replace

from dstack.artifacts.files import pieces
from dstack.artifacts.tarball import tar
from dstack.commands.command import Stdin
from dstack.commands.machine.pull import Login
from dstack.engine.job_on_runner import JobOnRunner
from dstack.engine.lifecycle.upload_status import ShippingProgress
from dstack.engine.transfer.fetch_dependencies import reused
from dstack.engine.transfer.push_code import CodePush, counted, write_spare
from dstack.errors import HostError
from dstack.executors.executor import RunnerFaultError
from dstack.model.api import wire
from dstack.model.job import script
from dstack.model.job.execution import Launched, Order
from dstack.model.job.job import Job, LaunchRecord
from dstack.model.job.manifest import Folder, folders_of
from dstack.model.job.reasons import Reason, ReasonCode
from dstack.model.job.resources import ask_of
from dstack.model.job.status import Phase, Progress, Status
from dstack.model.project import environment
from dstack.model.project.variables import config_args
from dstack.model.runner import mounts
from dstack.model.text.units import memory_bytes, rfc3339
from dstack.plumbing.clock import steady

SAFE_DIRECTORY = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
"""The tree belongs to the runner's user, not the container's, so git would refuse it ("dubious ownership")."""


async def start(job_on_runner: JobOnRunner) -> None:
    """Launch the job on its runner, and record that it runs there. If the runner is at fault, record that, too."""
    runner = job_on_runner.runner.name
    try:
        answer = await launched(job_on_runner)
    except RunnerFaultError as fault:
        job_on_runner.context.fleet.mark(runner, fault.finding)
        raise
    job_on_runner.answered = steady()
    if answer.outcome == "fenced":
        raise HostError(f"on {runner}, the job was withdrawn before its commands started, so nothing ran")
    if answer.outcome not in ("started", "exists"):
        raise HostError(f"the job could not be launched: {runner} answered '{answer.outcome}'")
    job_on_runner.store.logs.begin(job_on_runner.id)
    job_on_runner.change(
        status=Status.RUNNING,
        started_at=job_on_runner.job.started_at or rfc3339(time.time()),
        launch=answer.origin,
        image_digest=answer.digest,
        progress=None,
        reason=None,
        unreachable_since=None,
    )


async def launched(job_on_runner: JobOnRunner) -> Launched:
    """Launch the job once the runner has its code and image. A job that has already started is left alone."""
    artifacts, executor = job_on_runner.context.artifacts, job_on_runner.executor
    job, runner, folder = job_on_runner.job, job_on_runner.runner, job_on_runner.folder()
    needed = await artifacts.dependencies(job)
    if job.definition.artifacts:
        await artifacts.reach(folder)
    copied, rest = await reused(job_on_runner, needed)
    lacking = [manifest for manifest in rest if manifest.files]
    fetched, entries = await artifacts.place(folder, lacking, beside=copied)
    ordered = order(job_on_runner, artifacts=bool(entries), gathered=copied or fetched, folders=folders_of(needed))
    if job.definition.secrets:
        await job_on_runner.store.database.synced()  # what is masked in the log from now on
    tell = ShippingProgress(job_on_runner)
    given: Stdin = b""
    if entries:
        given = counted(lambda: pieces(tar(entries)), sum(file.size for file, _ in entries), tell)
    answer = await CodePush(job_on_runner, tell).launch(lambda pack: executor.launch(ordered, given, pack))
    if answer.outcome == "need-image":
        await prepare_image(job_on_runner)
        answer = await executor.launch(ordered, given)
        if answer.digest:
            job_on_runner.store.pulled_images.add(runner.name, job.image, answer.digest)
    if answer.spare:
        name = f"writing a spare tree on {runner.name}"
        job_on_runner.context.tasks.start(name, lambda: write_spare(job_on_runner), once=True)
    return answer


async def prepare_image(job_on_runner: JobOnRunner) -> None:
    """Bring the job's image to the runner, and report how far it is. Raises NotFoundError for a deleted secret."""
    job, name = job_on_runner.job, job_on_runner.runner.name

    def tell(how_far: str, progress: Progress | None) -> None:
        what = f"pulling {job.image} on {name}"
        reason = Reason(ReasonCode.PULLING_IMAGE, f"{what}: {how_far}" if how_far else what)
        job_on_runner.report(preparation=Phase.PULLING, progress=progress, reason=reason)

    auth, secrets = job.definition.registry_auth, job_on_runner.store.secrets
    login = Login(auth.username, secrets.require(auth.password), secret=auth.password) if auth else None
    await job_on_runner.executor.prepare(job.image, login, tell)
    job_on_runner.change(preparation=Phase.STARTING, progress=None, reason=None)


def order(job_on_runner: JobOnRunner, *, artifacts: bool, gathered: bool, folders: tuple[Folder, ...] = ()) -> Order:
    """What to launch: the job with its environment and its script. `artifacts`: some of its dependencies are sent on
    stdin. `gathered`: some are already on the runner. `folders` are the folders of all of them."""
    job, runner, resources = job_on_runner.job, job_on_runner.runner, job_on_runner.job.definition.resources
    asked = ask_of(resources)
    leased = [gpu for gpu in (runner.facts.gpus if runner.facts else ()) if gpu.index in job.gpus]
    return Order(
        job=job.id,
        attempt=job_on_runner.attempt,
        image=job.image,
        snapshot=job_on_runner.snapshot,
        depth=job.definition.fetch_depth,
        user=job.definition.user,
        gpus=job.gpus,
        cpu=asked.cpu,
        memory=asked.memory,
        shm=memory_bytes(resources.shm_size) if resources.shm_size else 0,
        script=script.script(job.definition, job.variables, job.id, job.run),
        environment=container_environment(job_on_runner),
        caches=job.definition.cache,
        artifacts=artifacts,
        gathered=gathered,
        folders=folders,
        mounts=tuple(mounts.parse(text) for text in job.definition.mounts),
        allowed=mounts.outermost(runner.allow_mounts),
        nodes=tuple(gpu.node for gpu in leased if gpu.vendor == "amd"),
        record=launch_record(job_on_runner),
    )


def launch_record(job_on_runner: JobOnRunner) -> str:
    """What stays in the job's folder, for a server whose state is older than the launch, or empty."""
    store, job = job_on_runner.store, job_on_runner.job
    run = replace(store.runs.require(job.run), environment={})
    return wire.encode(LaunchRecord(run=run, job=job)).decode()


def container_environment(job_on_runner: JobOnRunner) -> dict[str, str | None]:
    """The container's environment; None unsets a variable. From now on, the job's secrets are masked in its log. Raises
    NotFoundError if one has been deleted."""
    job, store = job_on_runner.job, job_on_runner.store
    secrets = {name: store.secrets.require(name) for name in job.definition.secrets}
    if secrets:
        store.secrets.give(job.id, list(secrets.values()))
    given = {**store.runs.require(job.run).environment, **secrets}
    return environment_with(job, given)


def environment_with(job: Job, given: Mapping[str, str]) -> dict[str, str | None]:
    """What is set in the container of a placed job, with these values in the place of `-e` and of secrets."""
    reserved = environment.reserved_values(
        run=job.run,
        job=job.id,
        workflow=job.workflow,
        config_args=config_args(job.variables.own),
        runner=job.runner or "",
        gpus=job.gpus,
        attempt=job.attempt,
    )
    return {**SAFE_DIRECTORY, **environment.build(job.variables, job.definition.env, given, reserved)}
